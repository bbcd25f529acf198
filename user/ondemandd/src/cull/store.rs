// SPDX-License-Identifier: MIT OR Apache-2.0

//! The store on disk, as far as culling looks at it: `cache/I<volume>/@xx/<object>`.
//!
//! Every step goes from a directory that is open to one right below it, never through a symbolic
//! link and never to another file system, so that nothing in the store can lead out of it. Whatever
//! is not shaped like the kernel's own is left alone.

use std::ffi::CStr;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::fs::Dir;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Stat;
use rustix::fs::StatVfs;
use rustix::io::Errno;
use tracing::debug;

use crate::cull::oldest::Candidate;
use crate::cull::oldest::Place;
use crate::cull::oldest::Used;

/// A bound cache's directory.
#[derive(Debug)]
pub(crate) struct Store {
    root: OwnedFd,
}

/// What a walk shows.
#[derive(Debug)]
pub(crate) enum Found {
    /// The file of an object.
    Object(Candidate),
    /// A volume's directory with nothing but empty directories in it.
    EmptyVolume(Arc<OsString>),
}

impl Store {
    /// Opens the directory of a cache.
    ///
    /// # Errors
    ///
    /// What `open` says.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Store { root })
    }

    /// The directory of the volumes. The kernel makes it when the cache is bound.
    pub(crate) fn cache(&self) -> Result<OwnedFd, Errno> {
        open_below(&self.root, OsStr::new("cache"))
    }

    /// The directory of what the kernel wants to be deleted.
    pub(crate) fn graveyard(&self) -> Result<OwnedFd, Errno> {
        open_below(&self.root, OsStr::new("graveyard"))
    }

    /// The same, made if it is missing.
    pub(crate) fn make_graveyard(&self) -> Result<OwnedFd, Errno> {
        let name = OsStr::new("graveyard");
        match rustix::fs::mkdirat(&self.root, name, Mode::RWXU) {
            Ok(()) => rustix::fs::fsync(&self.root)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        open_below(&self.root, name)
    }

    /// The directory of the cache.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory that an object's file is in.
    pub(crate) fn directory_of(&self, place: &Place) -> Result<OwnedFd, Errno> {
        let volume = open_below(&self.cache()?, &place.volume)?;
        open_below(&volume, &place.fanout)
    }

    /// What the file system says of itself.
    pub(crate) fn space(&self) -> Result<StatVfs, Errno> {
        rustix::fs::fstatvfs(&self.root)
    }

    /// Whether a volume's directory holds nothing but empty directories.
    pub(crate) fn is_empty(&self, volume: &Arc<OsString>) -> Result<bool, Errno> {
        let mut empty = false;
        let visit = &mut |found| {
            empty = matches!(found, Found::EmptyVolume(_));
            ControlFlow::Break(())
        };
        // The flow says no more than that something was shown.
        let _ = walk_volume(&self.cache()?, volume, visit)?;
        Ok(empty)
    }

    /// Shows every object of one volume, or that it has none.
    pub(crate) fn walk_one(
        &self,
        volume: &Arc<OsString>,
        visit: &mut impl FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        // Only the flow of `visit` ends it early.
        let _ = walk_volume(&self.cache()?, volume, visit)?;
        Ok(())
    }

    /// Shows every object, and after those of a volume, the volume if there were none. A directory
    /// that cannot be read is passed over.
    ///
    /// # Errors
    ///
    /// The directory of the volumes cannot be read.
    pub(crate) fn walk(
        &self,
        mut visit: impl FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        let cache = self.cache()?;
        // Nothing but the flow of `visit` ends the walk early.
        let _ = for_each_entry(&cache, |volume| {
            if volume.as_bytes().first() != Some(&b'I') {
                return ControlFlow::Continue(());
            }
            let volume = Arc::new(volume.to_owned());
            match walk_volume(&cache, &volume, &mut visit) {
                Ok(flow) => flow,
                Err(error) => {
                    debug!(?volume, %error, "volume not read");
                    ControlFlow::Continue(())
                }
            }
        })?;
        Ok(())
    }
}

fn walk_volume(
    cache: &OwnedFd,
    volume: &Arc<OsString>,
    visit: &mut impl FnMut(Found) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Errno> {
    let dir = open_below(cache, volume)?;
    let mut empty = true;
    let flow = for_each_entry(&dir, |fanout| {
        if !is_fanout(fanout) {
            empty = false;
            return ControlFlow::Continue(());
        }
        let fanout = Arc::new(fanout.to_owned());
        match walk_fanout(&dir, volume, &fanout, visit) {
            Ok((flow, found_none)) => {
                empty &= found_none;
                flow
            }
            Err(error) => {
                debug!(?volume, ?fanout, %error, "directory not read");
                empty = false;
                ControlFlow::Continue(())
            }
        }
    })?;
    Ok(match flow {
        ControlFlow::Continue(()) if empty => visit(Found::EmptyVolume(Arc::clone(volume))),
        flow => flow,
    })
}

/// Also says whether there was nothing at all.
fn walk_fanout(
    dir: &OwnedFd,
    volume: &Arc<OsString>,
    fanout: &Arc<OsString>,
    visit: &mut impl FnMut(Found) -> ControlFlow<()>,
) -> Result<(ControlFlow<()>, bool), Errno> {
    let fanout_dir = open_below(dir, fanout)?;
    let mut empty = true;
    let flow = for_each_entry(&fanout_dir, |name| {
        empty = false;
        match object(&fanout_dir, name) {
            Ok(Some(stat)) => visit(Found::Object(Candidate {
                used: Used::of(&stat),
                place: Place {
                    volume: Arc::clone(volume),
                    fanout: Arc::clone(fanout),
                    name: name.to_owned(),
                },
            })),
            // It has just gone, or is none.
            Ok(None) | Err(_) => ControlFlow::Continue(()),
        }
    })?;
    Ok((flow, empty))
}

/// The attributes of an object's file; `None` for anything but a regular file.
pub(crate) fn object(dir: &OwnedFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(is_file.then_some(stat))
}

/// The bytes that a file takes on disk.
pub(crate) fn bytes_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512)
}

/// Opens a directory right below another, neither a link nor a mount point.
pub(crate) fn open_below(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::io::retry_on_intr(|| rustix::fs::openat2(&dir, name, flags, Mode::empty(), within))
}

/// Calls `visit` with each name but `.` and `..`.
pub(crate) fn for_each_entry(
    dir: impl AsFd,
    mut visit: impl FnMut(&OsStr) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Errno> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !is_dot(name) && visit(OsStr::from_bytes(name.to_bytes())).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// `@` and two hex digits.
fn is_fanout(name: &OsStr) -> bool {
    match name.as_bytes() {
        [b'@', digits @ ..] => digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn shown(store: &Store) -> Vec<String> {
        let mut all = Vec::new();
        let visit = |found| {
            all.push(match found {
                Found::Object(Candidate { place, .. }) => format!(
                    "{}/{}/{}",
                    place.volume.to_string_lossy(),
                    place.fanout.to_string_lossy(),
                    place.name.to_string_lossy()
                ),
                Found::EmptyVolume(volume) => format!("{} empty", volume.to_string_lossy()),
            });
            ControlFlow::Continue(())
        };
        store.walk(visit).unwrap();
        all.sort();
        all
    }

    #[test]
    fn only_what_the_kernel_made_is_shown() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        make("cache/Ia/@00/Dx");
        make("cache/Ia/@00/D y");
        make("cache/Ia/@ff/Dx");
        make("cache/Ia/@fff/Dx");
        make("cache/Ia/00/Dx");
        make("cache/Ia/@01/deeper/Dx");
        make("cache/Xa/@00/Dx");
        make("cache/file");
        make("cache/Inot-empty/note");
        make("cache/Ialso-not/@00/deeper/Dx");
        make("outside/@00/Dx");
        fs::create_dir_all(root.path().join("cache/Iempty/@00")).unwrap();
        fs::create_dir_all(root.path().join("cache/Iempty/@01")).unwrap();
        symlink("../outside", root.path().join("cache/Ilink")).unwrap();
        symlink("../../outside/@00", root.path().join("cache/Ia/@02")).unwrap();
        symlink("/etc/passwd", root.path().join("cache/Ia/@00/Dlink")).unwrap();
        let store = Store::open(root.path()).unwrap();
        let is_empty = |volume: &str| store.is_empty(&Arc::new(volume.into()));
        assert_eq!(is_empty("Ia"), Ok(false));
        assert_eq!(is_empty("Inot-empty"), Ok(false));
        assert_eq!(is_empty("Ialso-not"), Ok(false));
        assert_eq!(is_empty("Iempty"), Ok(true));
        assert!(is_empty("Ilink").is_err());
        assert_eq!(
            shown(&store),
            ["Ia/@00/D y", "Ia/@00/Dx", "Ia/@ff/Dx", "Iempty empty"]
        );
    }

    #[test]
    fn a_store_that_is_a_link_is_not_walked() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("other/Ia/@00")).unwrap();
        symlink("other", root.path().join("cache")).unwrap();
        let store = Store::open(root.path()).unwrap();
        let walked = store.walk(|_| panic!("shown"));
        assert_eq!(walked, Err(Errno::NOTDIR));
        let place = Place {
            volume: Arc::new("Ia".into()),
            fanout: Arc::new("@00".into()),
            name: "Dx".into(),
        };
        assert!(store.directory_of(&place).is_err());
    }

    #[test]
    fn nothing_above_can_be_opened() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert!(open_below(&store.root, OsStr::new("..")).is_err());
        assert!(open_below(&store.root, OsStr::new("/")).is_err());
    }
}
