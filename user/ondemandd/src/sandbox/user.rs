// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who the worker is: a user of `/etc/passwd` with its groups of `/etc/group`, or numbers.
//!
//! The two files are read as they are, and no other place that the C library would ask: it may not be there
//! to be asked, in an initramfs or when it is linked into the program. A user of another place is given by
//! numbers.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;
use std::thread;

use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use rustix::fs::Access;
use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::process::Gid;
use rustix::process::Uid;

/// These are tried in turn if nobody is named.
const DEFAULT_USERS: [&str; 2] = ["ondemandd", "nobody"];
/// What the kernel calls those that it has no number for; the numbers of `nobody` where that has none.
const OVERFLOW_ID: u32 = 65_534;
/// So many files of a source are tried before it is said to be readable.
const MOST_TRIED: usize = 64;
/// The reserved number that means "leave it as it is".
const NO_ID: u32 = u32::MAX;

/// A user, by numbers. Its text is `UID:GID` or `UID:GID:GROUP,...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    uid: u32,
    gid: u32,
    /// Supplementary groups.
    groups: Vec<u32>,
}

impl Identity {
    /// The user of that name, or with the numbers `UID:GID`; by default `ondemandd`, or else `nobody`, or
    /// else the numbers that `nobody` usually has.
    ///
    /// # Errors
    ///
    /// There is no such user; `/etc/passwd` or `/etc/group` cannot be read, or are malformed.
    pub fn find(name: Option<&str>) -> anyhow::Result<Self> {
        let passwd = read_if_there("/etc/passwd")?;
        let group = read_if_there("/etc/group")?;
        Self::find_in(name, &passwd, &group)
    }

    fn find_in(name: Option<&str>, passwd: &str, group: &str) -> anyhow::Result<Self> {
        let Some(name) = name else {
            let found = DEFAULT_USERS
                .iter()
                .find_map(|name| look_up(name, passwd, group));
            return Ok(found.unwrap_or(Identity {
                uid: OVERFLOW_ID,
                gid: OVERFLOW_ID,
                groups: Vec::new(),
            }));
        };
        if let Some(found) = look_up(name, passwd, group) {
            return Ok(found);
        }
        name.parse().map_err(|_| {
            anyhow!(
                "user `{}`: not in /etc/passwd; make it (useradd --system), or give its numbers \
                 as UID:GID",
                name.escape_debug()
            )
        })
    }

    /// Whether it is root, who is not changed.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Becomes this user, in this thread only and for good. Root stays what it is, with all of its groups.
    ///
    /// # Errors
    ///
    /// The process is not root, or may not change users.
    pub fn assume(&self) -> anyhow::Result<()> {
        if self.is_root() {
            return Ok(());
        }
        let cannot = || {
            format!(
                "cannot become the user {self}: this takes CAP_SETUID and CAP_SETGID; `user = \
                 \"root\"` does without"
            )
        };
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (gid, uid) = (Gid::from_raw(self.gid), Uid::from_raw(self.uid));
        rustix::thread::set_thread_groups(&groups).with_context(cannot)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).with_context(cannot)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).with_context(cannot)
    }

    /// Refuses a directory that this user, without any capability, cannot read blobs of. The way to the
    /// directory does not matter: a worker opens it while it still is root.
    ///
    /// # Errors
    ///
    /// The directory or all of its files that were tried cannot be read; or it is not there.
    pub fn check_source(&self, path: &Path) -> anyhow::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("cannot open the source {}", path.display()))?;
        let dumpable = rustix::process::dumpable_behavior();
        let tried = thread::scope(|scope| {
            // A thread of its own, which is another user until it ends.
            let trial = scope.spawn(|| {
                self.assume()?;
                super::drop_capabilities()?;
                Ok(try_files(&dir)?)
            });
            trial.join().unwrap_or_else(|_| bail!("a thread panicked"))
        });
        // The kernel has taken core dumps from all of the process.
        if let Ok(DumpableBehavior::Dumpable) = dumpable {
            let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
        }
        let tried = tried.with_context(|| format!("cannot examine {}", path.display()))?;
        let path = path.display();
        let advice = format!(
            "make it readable for that user or for all (chmod -R a+rX {path}), or name one who can \
             read it with --user (`user` in the configuration)"
        );
        ensure!(
            tried.may_enter,
            "the source {path} cannot be entered by the worker's user {self}: {advice}"
        );
        ensure!(
            tried.readable > 0 || tried.unreadable == 0,
            "none of the files in the source {path} can be read by the worker's user {self}: {advice}"
        );
        Ok(())
    }
}

/// What a user may do in a directory.
#[derive(Debug)]
struct Tried {
    may_enter: bool,
    readable: usize,
    unreadable: usize,
}

/// Tries the first files of a directory. That it can be listed is no condition: blobs are opened by name.
fn try_files(dir: &OwnedFd) -> Result<Tried, Errno> {
    let may = |at: BorrowedFd<'_>, name: &std::ffi::CStr, access| match rustix::fs::accessat(
        at,
        name,
        access,
        AtFlags::empty(),
    ) {
        Ok(()) => Ok(true),
        Err(Errno::ACCESS | Errno::NOENT | Errno::LOOP) => Ok(false),
        Err(errno) => Err(errno),
    };
    let mut tried = Tried {
        may_enter: may(dir.as_fd(), c".", Access::EXEC_OK)?,
        readable: 0,
        unreadable: 0,
    };
    if !tried.may_enter {
        return Ok(tried);
    }
    // Not `read_from`, which would open it anew: what was opened as root can be listed.
    let listed = rustix::fs::Dir::new(rustix::io::fcntl_dupfd_cloexec(dir, 0)?)?;
    for entry in listed {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        match may(dir.as_fd(), entry.file_name(), Access::READ_OK)? {
            true => tried.readable += 1,
            false => tried.unreadable += 1,
        }
        if tried.readable > 0 || tried.unreadable >= MOST_TRIED {
            break;
        }
    }
    Ok(tried)
}

fn read_if_there(path: &str) -> anyhow::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}

/// A line of /etc/passwd is `name:password:uid:gid:...`, and one of /etc/group `name:password:gid:members`.
fn look_up(name: &str, passwd: &str, group: &str) -> Option<Identity> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let user = passwd.lines().map(fields).find(|line| line[0] == name)?;
    let (uid, gid) = (id(user.get(2)?)?, id(user.get(3)?)?);
    let groups = group.lines().map(fields).filter_map(|line| {
        let members = line.get(3)?;
        let is_member = members.split(',').any(|member| member == name);
        is_member.then(|| id(&line[2]))?
    });
    let groups = groups.filter(|group| *group != gid).collect();
    Some(Identity { uid, gid, groups })
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != NO_ID)
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split(':');
            let (uid, gid) = (id(parts.next()?)?, id(parts.next()?)?);
            let groups = match parts.next() {
                Some(groups) => groups.split(',').map(id).collect::<Option<_>>()?,
                None => Vec::new(),
            };
            let is_all = parts.next().is_none();
            is_all.then_some(Identity { uid, gid, groups })
        };
        parse().ok_or_else(|| "not UID:GID or UID:GID:GROUP,...".to_owned())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)?;
        for (index, group) in self.groups.iter().enumerate() {
            let before = if index == 0 { ':' } else { ',' };
            write!(f, "{before}{group}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:99:98::/:/bin/false\n\
                          broken\nbad:x:-1:0::/:\nodd:x:4294967295:1::/:\n";
    const GROUP: &str = "web:x:33:other,nobody\nnobody:x:98:nobody\nx:x:12\nsrv:x:40:nobody\n";

    fn find(name: Option<&str>, passwd: &str) -> anyhow::Result<String> {
        Identity::find_in(name, passwd, GROUP).map(|it| it.to_string())
    }

    #[test]
    fn users_have_numbers_and_groups() {
        assert_eq!(find(Some("nobody"), PASSWD).unwrap(), "99:98:33,40");
        assert_eq!(find(None, PASSWD).unwrap(), "99:98:33,40");
        let own = PASSWD.to_owned() + "ondemandd:x:5:6::/:\n";
        assert_eq!(find(None, &own).unwrap(), "5:6");
        assert_eq!(find(None, "").unwrap(), "65534:65534");
        assert_eq!(find(Some("7:8"), PASSWD).unwrap(), "7:8");
        let root = Identity::find_in(Some("root"), PASSWD, GROUP).unwrap();
        assert!(root.is_root());
        for bad in ["nobody2", "", "7", "broken", "bad", "odd", "7:4294967295"] {
            let error = find(Some(bad), PASSWD).unwrap_err().to_string();
            assert!(error.contains("UID:GID"), "{bad}: {error}");
        }
    }

    #[test]
    fn numbers_survive_a_command_line() {
        for text in ["0:0", "65534:65534", "1:2:3", "1:2:3,4,5"] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
        for bad in ["", "1", "1:", "1:2:", "1:2:3,", "1:2:3:4", "a:b", "-1:0"] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sources_that_cannot_be_read_are_refused_with_advice() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let nobody: Identity = "65534:65534".parse().unwrap();
        let root = tempfile::tempdir().unwrap();
        // The way there is closed, which does not matter.
        let dir = root.path().join("source");
        fs::create_dir(&dir).unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(root.path(), 0o700);
        mode(&dir, 0o755);
        nobody.check_source(&dir).unwrap();
        fs::write(dir.join("a"), "x").unwrap();
        mode(&dir.join("a"), 0o600);
        let error = format!("{:#}", nobody.check_source(&dir).unwrap_err());
        assert!(
            error.contains("chmod") && error.contains("--user"),
            "{error}"
        );
        fs::write(dir.join("b"), "x").unwrap();
        mode(&dir.join("b"), 0o644);
        nobody.check_source(&dir).unwrap();
        // It need not be listed by that user.
        mode(&dir, 0o711);
        nobody.check_source(&dir).unwrap();
        mode(&dir.join("b"), 0o640);
        assert!(nobody.check_source(&dir).is_err());
        mode(&dir, 0o700);
        let error = format!("{:#}", nobody.check_source(&dir).unwrap_err());
        assert!(error.contains("cannot be entered"), "{error}");
        // Root has no capability either: what another one owns is closed to it.
        let root_user: Identity = "0:0".parse().unwrap();
        root_user.check_source(&dir).unwrap();
        for name in ["a", "b"] {
            std::os::unix::fs::chown(dir.join(name), Some(1), Some(1)).unwrap();
        }
        assert!(root_user.check_source(&dir).is_err());
        assert!(
            rustix::process::geteuid().is_root(),
            "only a thread was another"
        );
        assert!(nobody.check_source(&root.path().join("none")).is_err());
    }
}
