// SPDX-License-Identifier: MIT OR Apache-2.0

//! A directory of blobs: a key names a file below it, and never one outside.

use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;

use super::is_plain_name;
use super::LookupError;
use super::ReadError;

/// A directory of blobs.
#[derive(Debug)]
pub struct Directory {
    dir: OwnedFd,
}

/// One blob: a file that is open.
#[derive(Debug)]
pub struct FileBlob {
    file: File,
    size: u64,
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
        // A regular file has no negative size.
        let size = u64::try_from(stat.st_size).map_err(|_| LookupError::NotAFile)?;
        Ok(FileBlob {
            file: file.into(),
            size,
        })
    }
}

impl AsFd for Directory {
    /// With `O_PATH`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl FileBlob {
    /// Size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
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
                ErrorKind::UnexpectedEof => ReadError::Shrunk(self.size),
                _ => ReadError::Read(error),
            })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn source() -> (tempfile::TempDir, Directory) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("blobs");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        fs::write(dir.join("blob"), "0123456789").unwrap();
        fs::write(dir.join("sub/blob"), "x").unwrap();
        fs::write(dir.join(OsStr::from_bytes(b"\xff\x01 ..")), "odd").unwrap();
        let source = Directory::open(&dir).unwrap();
        (root, source)
    }

    #[test]
    fn keys_are_names_of_any_bytes() {
        let (_root, source) = source();
        for (key, size) in [(&b"blob"[..], 10), (b"sub/blob", 1), (b"\xff\x01 ..", 3)] {
            assert_eq!(source.lookup(key).unwrap().size(), size);
        }
        let blob = source.lookup(b"blob").unwrap();
        let mut part = [0; 4];
        blob.read_at(&mut part, 5).unwrap();
        assert_eq!(&part, b"5678");
        let error = blob.read_at(&mut part, 8).unwrap_err();
        assert!(matches!(error, ReadError::Shrunk(10)));
    }

    #[test]
    fn nothing_outside_is_reached() {
        let (root, source) = source();
        let dir = root.path().join("blobs");
        let absolute = root.path().join("secret");
        for key in [
            &b""[..],
            b"..",
            b".",
            b"../secret",
            b"sub/../../secret",
            b"sub/../blob",
            b"/etc/passwd",
            b"sub//blob",
            b"blob/",
            b"blob\0",
            b"\0",
            absolute.as_os_str().as_bytes(),
        ] {
            assert_eq!(source.lookup(key).unwrap_err(), LookupError::BadName);
        }

        symlink("../secret", dir.join("up")).unwrap();
        symlink(&absolute, dir.join("absolute")).unwrap();
        symlink("..", dir.join("parent")).unwrap();
        symlink("/proc/self/root", dir.join("magic")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        for key in [
            "up",
            "absolute",
            "parent/secret",
            "magic/etc/passwd",
            "loop",
        ] {
            let error = source.lookup(key.as_bytes()).unwrap_err();
            assert_eq!(error, LookupError::Escape, "{key}");
            assert_eq!(error.errno(), Errno::NOENT);
        }
        symlink("sub/blob", dir.join("inside")).unwrap();
        assert_eq!(source.lookup(b"inside").unwrap().size(), 1);
    }

    #[test]
    fn only_regular_files_are_blobs() {
        let (root, source) = source();
        let fifo = root.path().join("blobs/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(source.lookup(b"sub").unwrap_err(), LookupError::NotAFile);
        assert_eq!(source.lookup(b"fifo").unwrap_err(), LookupError::NotAFile);
        assert_eq!(source.lookup(b"none").unwrap_err(), LookupError::Unknown);
        assert_eq!(source.lookup(b"blob/x").unwrap_err(), LookupError::Unknown);
        let long = [b'x'; 256];
        assert_eq!(source.lookup(&long).unwrap_err(), LookupError::Unknown);
    }
}
