// SPDX-License-Identifier: MIT OR Apache-2.0

//! A directory of blobs: a key names a file below it, and never one outside.
//!
//! Which version of a file there is, `fstat` says: its inode, its size, and the times when its data and its inode
//! were changed. Not its device: that number may be another one after a reboot. The time of the inode's change
//! cannot be set by anybody, but it has a grain: two changes within one may have the same. So what was changed
//! just now is looked at again a moment later; from then on another change has another time. After each read the
//! file is looked at once more, before the data goes anywhere.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use super::is_plain_name;
use super::token::Identity;
use super::Check;
use super::LookupError;
use super::ReadError;

/// Linux gives times in ticks of at most 10 ms.
const GRAIN: Duration = Duration::from_millis(20);
/// The same where a file system keeps whole seconds, as ext4 with small inodes does.
const COARSE_GRAIN: Duration = Duration::from_millis(1100);

/// A directory of blobs.
#[derive(Debug)]
pub struct Directory {
    dir: OwnedFd,
}

/// One blob: a file that is open.
#[derive(Debug)]
pub struct FileBlob {
    file: File,
    marks: Marks,
    check: Check,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Marks {
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, u64),
    /// Of the inode; a change of its data is one of these, too.
    changed: (i64, u64),
}

impl Directory {
    /// Opens the directory. A directory that takes its place later is not noticed.
    ///
    /// # Errors
    ///
    /// What `open` says.
    pub fn open(dir: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, flags, Mode::empty())?;
        Ok(Directory { dir })
    }

    /// Opens the blob that a cookie key names. The key is a path below the directory, of any bytes;
    /// symbolic links are followed as long as they stay below it.
    ///
    /// # Errors
    ///
    /// A [`LookupError`].
    pub fn lookup(&self, key: &[u8]) -> Result<FileBlob, LookupError> {
        if !is_plain_name(key) {
            return Err(LookupError::BadName);
        }
        // NONBLOCK: the name may be that of a FIFO.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let name = OsStr::from_bytes(key);
        let file = rustix::fs::openat2(&self.dir, name, flags, Mode::empty(), resolve).map_err(
            |errno| match errno {
                Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => LookupError::Unknown,
                Errno::XDEV | Errno::LOOP => LookupError::Escape,
                Errno::NXIO => LookupError::NotAFile,
                errno => LookupError::Open(errno),
            },
        )?;
        let stat = rustix::fs::fstat(&file).map_err(LookupError::Stat)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(LookupError::NotAFile);
        }
        Ok(FileBlob {
            file: file.into(),
            marks: Marks::of(&stat).ok_or(LookupError::NotAFile)?,
            check: Check::Version,
        })
    }
}

impl AsFd for Directory {
    /// With `O_PATH`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Marks {
    /// A regular file has no negative size.
    #[expect(
        clippy::allow_attributes,
        reason = "the types of `Stat` depend on the machine, and so do the lints"
    )]
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    fn of(stat: &Stat) -> Option<Self> {
        let nanoseconds = |value| u64::try_from(value).unwrap_or(0);
        Some(Marks {
            inode: u64::from(stat.st_ino),
            size: u64::try_from(stat.st_size).ok()?,
            modified: (i64::from(stat.st_mtime), nanoseconds(stat.st_mtime_nsec)),
            changed: (i64::from(stat.st_ctime), nanoseconds(stat.st_ctime_nsec)),
        })
    }

    /// How long it takes until another change is sure to have another time; nothing for most files.
    fn unsettled(&self, now: SystemTime) -> Option<Duration> {
        let (seconds, nanoseconds) = self.changed;
        let grain = match nanoseconds {
            0 => COARSE_GRAIN,
            _ => GRAIN,
        };
        let at = Duration::new(
            u64::try_from(seconds).ok()?,
            u32::try_from(nanoseconds).ok()?,
        );
        let at = SystemTime::UNIX_EPOCH.checked_add(at)?;
        // A time to come is that of another clock.
        let age = now.duration_since(at).ok()?;
        grain.checked_sub(age).filter(|left| !left.is_zero())
    }

    fn identity(&self) -> Identity {
        let number = |n: u64| n.to_le_bytes();
        let time = |(seconds, nanoseconds): (i64, u64)| {
            [seconds.to_le_bytes(), nanoseconds.to_le_bytes()].concat()
        };
        let parts = [
            &number(self.inode)[..],
            &number(self.size),
            &time(self.modified),
            &time(self.changed),
        ];
        Identity::new("file", &parts, self)
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Marks {
            inode,
            size,
            modified: (mtime, mtime_ns),
            changed: (ctime, ctime_ns),
        } = self;
        write!(
            f,
            "{size} bytes, inode {inode}, mtime {mtime}.{mtime_ns:09}, ctime {ctime}.{ctime_ns:09}"
        )
    }
}

impl FileBlob {
    /// Size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.marks.size
    }

    /// Which version it is, by its inode. What was changed just now is waited for, a second at most.
    ///
    /// # Errors
    ///
    /// [`LookupError::Stat`]; or it goes on changing.
    pub fn identify(&mut self) -> Result<Identity, LookupError> {
        for _ in 0..3 {
            let Some(left) = self.marks.unsettled(SystemTime::now()) else {
                return Ok(self.marks.identity());
            };
            thread::sleep(left);
            let stat = rustix::fs::fstat(&self.file).map_err(LookupError::Stat)?;
            self.marks = Marks::of(&stat).ok_or(LookupError::NotAFile)?;
        }
        Err(LookupError::Unsettled)
    }

    /// From now on this is what reads are held against.
    pub fn check_by(&mut self, check: Check) {
        self.check = check;
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// A [`ReadError`]; what `buffer` holds is then unspecified.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => ReadError::Shrunk(self.marks.size),
                _ => ReadError::Read(error),
            })?;
        // Afterwards: what changes from now on is not in the buffer.
        let stat = rustix::fs::fstat(&self.file).map_err(|errno| ReadError::Read(errno.into()))?;
        let now = Marks::of(&stat).ok_or_else(|| ReadError::Changed("has no size".to_owned()))?;
        let is_same = match self.check {
            Check::Version => now == self.marks,
            Check::Size => now.size == self.marks.size,
        };
        match is_same {
            true => Ok(()),
            false => Err(ReadError::Changed(format!("was {}, is {now}", self.marks))),
        }
    }
}

#[cfg(test)]
mod tests;
