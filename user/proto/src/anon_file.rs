// SPDX-License-Identifier: MIT OR Apache-2.0

//! The anonymous file of one open object: data in, READs completed.

use std::ffi::c_int;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::io::FdFlags;
use rustix::ioctl::opcode;
use rustix::ioctl::IntegerSetter;
use rustix::ioctl::Opcode;

use crate::error::Error;
use crate::error::Result;
use crate::BLOCK_SIZE;

/// `CACHEFILES_IOC_READ_COMPLETE`: `_IOW(0x98, 1, int)`, though the argument is a value.
pub const READ_COMPLETE_OPCODE: Opcode = opcode::write::<c_int>(0x98, 1);

const _: () = assert!(READ_COMPLETE_OPCODE == 0x4004_9801);

/// The way into the cache for one object, from its OPEN on. Dropping it closes the object.
///
/// It is write-only. Nothing of it may be inherited by another program: as long as any copy is
/// open the kernel takes the object for open.
#[derive(Debug)]
pub struct AnonymousFile {
    fd: OwnedFd,
}

impl AnonymousFile {
    /// Writes once; returns how many bytes were written.
    ///
    /// Address and length of `data` and `offset` must be multiples of [`BLOCK_SIZE`].
    ///
    /// # Errors
    ///
    /// [`Error::WriteObject`]: `EINVAL` or `ENOBUFS` for what is not aligned; `ENOBUFS` for an
    /// object that is not ready yet (C module, right after copen) or withdrawn; `ENOSPC`.
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<usize> {
        rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.fd, data, offset)).map_err(|errno| {
            Error::WriteObject {
                offset,
                len: data.len(),
                errno,
            }
        })
    }

    /// Writes all of `data`, which must be aligned as for [`AnonymousFile::write_at`].
    ///
    /// # Errors
    ///
    /// As [`AnonymousFile::write_at`]; [`Error::ShortWrite`] if the kernel stopped inside of a
    /// block.
    pub fn write_all_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let written = self.write_at(rest, at)?;
            if written == 0 || written > rest.len() || written % BLOCK_SIZE != 0 {
                if written == rest.len() {
                    return Ok(());
                }
                return Err(Error::ShortWrite {
                    offset: at,
                    len: rest.len(),
                    written,
                });
            }
            rest = &rest[written..];
            // `written` is no more than the length of a slice: the sum may only leave the range of
            // file offsets, and then the next write says so.
            at = at.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Ends a READ: the kernel looks at the range again. If it still has holes, the kernel asks
    /// again or fails the reader.
    ///
    /// # Errors
    ///
    /// [`Error::ReadComplete`]: `EINVAL` if there is no such READ of this object (any more).
    pub fn read_complete(&self, msg_id: u32) -> Result<()> {
        let value = usize::try_from(msg_id).unwrap_or(usize::MAX);
        // SAFETY: The opcode takes an integer by value; the kernel reads and writes no memory.
        let request = unsafe { IntegerSetter::<READ_COMPLETE_OPCODE>::new_usize(value) };
        // SAFETY: The opcode is cachefiles' own, and an integer is all that it takes.
        let done = unsafe { rustix::ioctl::ioctl(&self.fd, request) };
        done.map_err(|errno| Error::ReadComplete { msg_id, errno })
    }

    /// The first byte at or after `offset` that the cache holds, or `None` if none does.
    ///
    /// # Errors
    ///
    /// [`Error::Seek`]: `ENOBUFS` if the object is not ready or withdrawn.
    pub fn seek_data(&self, offset: u64) -> Result<Option<u64>> {
        self.seek(SeekFrom::Data(offset), offset)
    }

    /// The first byte at or after `offset` that the cache lacks; the end of the file counts as
    /// one. `None` if `offset` is beyond the end.
    ///
    /// # Errors
    ///
    /// [`Error::Seek`]: `ENOBUFS` if the object is not ready or withdrawn.
    pub fn seek_hole(&self, offset: u64) -> Result<Option<u64>> {
        self.seek(SeekFrom::Hole(offset), offset)
    }

    /// Keeps the file from being inherited over `exec`, which the C module leaves to the daemon.
    ///
    /// # Errors
    ///
    /// [`Error::CloseOnExec`]; not seen.
    pub fn set_close_on_exec(&self) -> Result<()> {
        rustix::io::fcntl_setfd(&self.fd, FdFlags::CLOEXEC).map_err(Error::CloseOnExec)
    }

    fn seek(&self, to: SeekFrom, offset: u64) -> Result<Option<u64>> {
        match rustix::fs::seek(&self.fd, to) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(Error::Seek { offset, errno }),
        }
    }
}

impl From<OwnedFd> for AnonymousFile {
    fn from(fd: OwnedFd) -> Self {
        AnonymousFile { fd }
    }
}

impl From<AnonymousFile> for OwnedFd {
    fn from(file: AnonymousFile) -> Self {
        file.fd
    }
}

impl AsFd for AnonymousFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn writes_land_where_they_should() {
        let file = tempfile::tempfile().unwrap();
        let anon = AnonymousFile::from(OwnedFd::from(file.try_clone().unwrap()));
        let block = [7; 2 * BLOCK_SIZE];
        anon.write_all_at(&block, 8192).unwrap();
        let mut back = [0; 2 * BLOCK_SIZE];
        file.read_exact_at(&mut back, 8192).unwrap();
        assert_eq!(back, block);
        assert_eq!(anon.seek_data(0).unwrap(), Some(8192));
        assert_eq!(anon.seek_hole(8192).unwrap(), Some(16384));
        assert_eq!(anon.seek_data(1 << 20).unwrap(), None);
    }

    #[test]
    fn errors_say_what_they_are_about() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let anon = AnonymousFile::from(OwnedFd::from(file));
        let error = anon.read_complete(12).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::NOTTY));
        assert!(error.to_string().contains("READ 12"), "{error}");
        let error = anon.write_at(&[0; 1], 5).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::BADF));
    }
}
