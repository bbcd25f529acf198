// SPDX-License-Identifier: GPL-2.0

//! A file of the store, open for direct reading and writing.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::bindings;
use crate::kcompat::fs::File;
use crate::kcompat::types::ARef;
use crate::vfs::cred::Credentials;
use crate::vfs::dentry::Dentry;
use crate::vfs::in_use::Mark;
use crate::vfs::page_cache;
use crate::vfs::path::Path;
use kernel::error::to_result;
use kernel::prelude::*;

const FILE_MODE: bindings::umode_t = (bindings::S_IFREG | 0o600) as bindings::umode_t;
const OPEN_FLAGS: i32 = (bindings::O_RDWR | bindings::O_LARGEFILE | bindings::O_DIRECT) as i32;

/// Which inode it is, of all that its file system has ever had.
pub(crate) struct InodeId {
    /// The inode's number, and its generation.
    pub(crate) number: u64,
    pub(crate) generation: u32,
    /// When it was made, since 1970, with nanoseconds below a second; 0 if that is not known.
    pub(crate) made_seconds: i64,
    pub(crate) made_nanoseconds: u32,
}

/// A file of the store that is open and marked as in use; the mark goes when this is dropped.
/// Others may hold the [`File`]s beyond that.
///
/// It is open twice, since a sync lets the kernel forget, for the opening through which it is done, that data was lost.
pub(crate) struct StoreFile {
    _mark: Mark,
    /// Never synced, nor written through, which syncs as well on a file system that is mounted with `sync`. So
    /// [`page_cache::has_lost_data`] knows of all that was lost.
    file: ARef<File>,
    writer: ARef<File>,
    path: Path,
}

/// Where a seek is asked to go.
#[derive(Clone, Copy)]
pub(crate) enum Whence {
    /// The end of the file.
    End,
    /// The next data at or behind the offset.
    Data,
    /// The next hole at or behind the offset.
    Hole,
}

/// The next data of a file, as `SEEK_DATA` and `SEEK_HOLE` tell it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// From the place asked for on there is data up to (not including) this byte.
    Data(u64),
    /// From the place asked for on there is a hole up to this byte; `None`: to the end.
    Hole(Option<u64>),
}

impl StoreFile {
    /// Opens an unnamed file in `dir`. The caller has write access to the mount.
    pub(super) fn create_tmpfile(dir: &Path, cred: &Credentials) -> Result<Self> {
        // SAFETY: The path and the credentials are live.
        let file = unsafe {
            bindings::kernel_tmpfile_open(
                bindings::no_idmap(),
                &dir.as_raw(),
                FILE_MODE,
                OPEN_FLAGS,
                cred.as_ptr(),
            )
        };
        // SAFETY: The function returns an error pointer or a reference.
        let file = can_be_used(unsafe { File::from_err_ptr(file) }?)?;
        // SAFETY: An open file's path does not change and keeps its dentry.
        let dentry = unsafe { Dentry::from_raw(bindings::file_path_dentry(file.as_ptr())) };
        let _mark = Mark::take(dentry).ok_or(EBUSY)?;
        let path = dir.with_dentry(dentry.into());
        Ok(StoreFile {
            _mark,
            file,
            writer: open(&path, cred)?,
            path,
        })
    }

    /// Opens an existing file, which the caller has marked.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(super) fn open(path: &Path, mark: Mark, cred: &Credentials) -> Result<Self> {
        Ok(StoreFile {
            _mark: mark,
            file: open(path, cred)?,
            writer: open(path, cred)?,
            path: path.with_dentry(path.dentry().clone()),
        })
    }

    /// Notes under which name an unnamed file was linked.
    pub(super) fn set_path(&mut self, path: Path) {
        self.path = path;
    }

    /// The open file, for all but writing.
    pub(crate) fn file(&self) -> &ARef<File> {
        &self.file
    }

    /// The same file, for writing.
    pub(crate) fn writer(&self) -> &ARef<File> {
        &self.writer
    }

    /// Begins anew with a file that somebody has used before, see [`page_cache::start_over`].
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn start_over(&self) -> Result {
        page_cache::start_over(&self.file).and(page_cache::start_over(&self.writer))
    }

    /// Where it is; for an unnamed file, the dentry that stands for it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        size(&self.file)
    }

    /// Makes the file end at `size`; what is new is a hole.
    ///
    /// # Errors
    ///
    /// `EFBIG`, `EROFS`, `EIO` and what else the file system says.
    pub(crate) fn set_size(&self, size: u64) -> Result {
        let size = i64::try_from(size).map_err(|_| EFBIG)?;
        // SAFETY: The path is live.
        let ret = unsafe { bindings::vfs_truncate(&self.path.as_raw(), size) };
        to_result(i32::try_from(ret).unwrap_or(-5))
    }

    /// Whether its blocks are mapped by extents, of which a part may be unwritten. For ext4, whose files say so.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn has_extents(&self) -> Result<bool> {
        let mut flags = 0;
        // SAFETY: The dentry is a live file's, and `flags` is valid for writes.
        to_result(unsafe { bindings::fileattr_flags(self.path.dentry().as_ptr(), &mut flags) })?;
        Ok(flags & bindings::FS_EXTENT_FL != 0)
    }

    /// Which file it is, of all that the file system has ever had.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn id(&self) -> Result<InodeId> {
        let mut stat = bindings::kstat::default();
        // SAFETY: The path is live, and `stat` is valid for writes.
        to_result(unsafe {
            bindings::vfs_getattr(&self.path.as_raw(), &mut stat, bindings::STATX_BTIME, 0)
        })?;
        let made = if stat.result_mask & bindings::STATX_BTIME != 0 {
            stat.btime
        } else {
            bindings::timespec64::default()
        };
        // SAFETY: An open file has an inode, whose generation does not change.
        let generation = unsafe { (*bindings::file_inode(self.file.as_ptr())).i_generation };
        Ok(InodeId {
            number: stat.ino,
            generation,
            made_seconds: made.tv_sec,
            made_nanoseconds: u32::try_from(made.tv_nsec).unwrap_or(0),
        })
    }

    /// Waits until the file is on the disk, its attributes too.
    ///
    /// # Errors
    ///
    /// What the file system says. `EIO`, `ENOSPC` and the like also of data that was lost before, but once.
    pub(crate) fn sync(&self) -> Result {
        // SAFETY: The file is live.
        to_result(unsafe { bindings::vfs_fsync(self.writer.as_ptr(), 0) })
    }

    /// Notes that the file was used now, which is what culling goes by.
    pub(crate) fn touch(&self) {
        // SAFETY: The path is live.
        unsafe { bindings::touch_atime(&self.path.as_raw()) }
    }
}

/// Opens the file at `path`.
fn open(path: &Path, cred: &Credentials) -> Result<ARef<File>> {
    // SAFETY: The path and the credentials are live.
    let file = unsafe { bindings::kernel_file_open(&path.as_raw(), OPEN_FLAGS, cred.as_ptr()) };
    // SAFETY: The function returns an error pointer or a reference.
    can_be_used(unsafe { File::from_err_ptr(file) }?)
}

/// A file without the functions for reading and writing is of no use.
fn can_be_used(file: ARef<File>) -> Result<ARef<File>> {
    // SAFETY: An open file's operations do not change.
    let op = unsafe { &*(*file.as_ptr()).f_op };
    if op.read_iter.is_none() || op.write_iter.is_none() {
        return Err(EINVAL);
    }
    page_cache::read_no_more_than_asked(&file)?;
    Ok(file)
}

/// The size of an open file in bytes.
pub(crate) fn size(file: &File) -> u64 {
    // SAFETY: An open file has an inode.
    let size = unsafe { bindings::i_size_read(bindings::file_inode(file.as_ptr())) };
    u64::try_from(size).unwrap_or(0)
}

/// Bytes that a file may have which the current task writes to (`RLIMIT_FSIZE`).
pub(crate) fn size_limit() -> u64 {
    // SAFETY: The limits of the current task are there.
    unsafe { bindings::rlimit(bindings::RLIMIT_FSIZE) as u64 }
}

/// `lseek(2)` on the file itself.
///
/// [`Whence::End`] is the end of the file in the store, which is the object's in whole pages.
///
/// # Errors
///
/// `ENXIO` beyond the end, `EINVAL`, and what the file system says.
pub(crate) fn seek(file: &File, pos: i64, whence: Whence) -> Result<i64> {
    let whence = match whence {
        Whence::End => bindings::SEEK_END,
        Whence::Data => bindings::SEEK_DATA,
        Whence::Hole => bindings::SEEK_HOLE,
    };
    // SAFETY: The file is live.
    let ret = unsafe { bindings::vfs_llseek(file.as_ptr(), pos, whence as i32) };
    if ret < 0 {
        return Err(Error::from_errno(i32::try_from(ret).unwrap_or(-5)));
    }
    Ok(ret)
}

/// Whether there is data at `pos`, and how far it, or the hole, goes. Two seeks for data, one for
/// a hole.
///
/// # Errors
///
/// What the file system says.
pub(crate) fn extent(file: &File, pos: u64) -> Result<Extent> {
    let at = i64::try_from(pos).map_err(|_| EFBIG)?;
    let data = match seek(file, at, Whence::Data) {
        Ok(data) => data,
        Err(error) if error == ENXIO => return Ok(Extent::Hole(None)),
        Err(error) => return Err(error),
    };
    if data > at {
        return Ok(Extent::Hole(u64::try_from(data).ok()));
    }
    let hole = seek(file, at, Whence::Hole)?;
    Ok(Extent::Data(u64::try_from(hole).unwrap_or(pos)))
}
