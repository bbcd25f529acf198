// SPDX-License-Identifier: GPL-2.0

//! Which ranges of a file a file system has written, and which it has only allocated.
//!
//! `SEEK_DATA` alone does not tell. On ext4 and XFS an extent that is allocated and was never written
//! counts as data where a page of it is in the page cache, and anybody who reads the file puts one
//! there, and may take it away again, at any moment (`iomap_seek_data`, `mapping_seek_hole_data`).
//!
//! C headers: [`include/linux/fiemap.h`](srctree/include/linux/fiemap.h),
//! [`include/linux/falloc.h`](srctree/include/linux/falloc.h)

use crate::bindings;
use crate::kcompat::fs::File;
use crate::vfs::page_cache;
use crate::vfs::store_file;
use crate::vfs::store_file::Extent;
use crate::vfs::superblock::FsKind;
use core::ops::Range;
use kernel::error::to_result;
use kernel::prelude::*;

/// Tells each range of the file, in bytes and in order, that was written; two of them may touch. The
/// caller has dropped what was in the page cache, and nobody writes to the file. Others may read it.
///
/// - ext4: what `SEEK_DATA` calls data is asked about again with `bmap`, which knows of no page cache
///   and says 0 for an extent that was not written. (It has no shared extents, which would be 0 too.)
///   `SEEK_DATA` cannot be shielded: it takes the inode's lock, which comes before the lock that keeps
///   pages out.
/// - XFS: pages are kept out during the search; its `SEEK_DATA` takes the extents' lock alone, which
///   comes after that one. Its `bmap` says 0 for shared extents.
/// - Btrfs does not look at pages, but at what waits to be written: nothing does.
/// - Of any other nothing is known; it is believed.
///
/// # Errors
///
/// Of `tell`; `EBUSY` if a page cannot be dropped (XFS); what the file system says.
pub(crate) fn written_ranges(
    file: &File,
    kind: FsKind,
    mut tell: impl FnMut(Range<u64>) -> Result,
) -> Result {
    match kind {
        FsKind::Ext4 => seek_ranges(file, |range| confirmed(file, range, &mut tell)),
        FsKind::Xfs => page_cache::kept_empty(file, || seek_ranges(file, tell)),
        FsKind::Btrfs | FsKind::Other => seek_ranges(file, tell),
    }
}

/// What `SEEK_DATA` and `SEEK_HOLE` tell.
fn seek_ranges(file: &File, mut tell: impl FnMut(Range<u64>) -> Result) -> Result {
    let size = store_file::size(file);
    let mut at = 0;
    while at < size {
        match store_file::extent(file, at)? {
            Extent::Data(to) if to > at => {
                tell(at..to)?;
                at = to;
            }
            // A file system that says so would have us look for ever.
            Extent::Data(_) => return Err(EIO),
            Extent::Hole(Some(to)) => at = to,
            Extent::Hole(None) => return Ok(()),
        }
    }
    Ok(())
}

/// Those parts of `range`, which is in whole blocks, that `bmap` knows.
///
/// Not every block is asked about. Where there is but one extent it was written as a whole or not at
/// all, and FIEMAP counts extents; so one that has no neighbours costs three calls, whatever its length.
fn confirmed(
    file: &File,
    range: Range<u64>,
    tell: &mut impl FnMut(Range<u64>) -> Result,
) -> Result {
    let block = block_size(file);
    let mut at = range.start;
    let mut len = range.end - at;
    while at < range.end {
        len = len.min(range.end - at);
        let whole = len <= block || extents(file, at..at + len)? == Some(1);
        if !whole {
            len = (len / 2).next_multiple_of(block);
            continue;
        }
        let last = (at + len - 1).max(at);
        if is_mapped(file, at)? && is_mapped(file, last)? {
            tell(at..at + len)?;
        }
        at += len;
        len *= 2;
    }
    Ok(())
}

/// Bytes of a block of the file.
fn block_size(file: &File) -> u64 {
    // SAFETY: An open file has an inode, whose block size does not change.
    1 << unsafe { (*bindings::file_inode(file.as_ptr())).i_blkbits }
}

/// Whether the block of the byte at `pos` was written, as `bmap` says.
fn is_mapped(file: &File, pos: u64) -> Result<bool> {
    let mut block = pos / block_size(file);
    // SAFETY: An open file has an inode; the block's number is read and written.
    to_result(unsafe { bindings::bmap(bindings::file_inode(file.as_ptr()), &mut block) })?;
    Ok(block != 0)
}

/// Extents in a range that is not empty, written or not; `None` if the file system does not tell.
/// Where two of one kind touch they may be counted as one, or one as several.
fn extents(file: &File, range: Range<u64>) -> Result<Option<u32>> {
    // SAFETY: An open file has an inode.
    let inode = unsafe { bindings::file_inode(file.as_ptr()) };
    // SAFETY: An inode's operations do not change.
    let Some(fiemap) = (unsafe { (*(*inode).i_op).fiemap }) else {
        return Ok(None);
    };
    // With room for none they are counted.
    let mut info = bindings::fiemap_extent_info {
        fi_flags: 0,
        fi_extents_mapped: 0,
        fi_extents_max: 0,
        fi_extents_start: core::ptr::null_mut(),
    };
    // SAFETY: The inode is live; nothing is written to user space without room.
    to_result(unsafe {
        fiemap(
            inode,
            core::ptr::from_mut(&mut info).cast(),
            range.start,
            range.end - range.start,
        )
    })?;
    Ok(Some(info.fi_extents_mapped))
}

/// Bytes that are allocated to the file, those of its tables among them.
pub(crate) fn allocated(file: &File) -> u64 {
    // SAFETY: An open file has an inode; the number is only a hint.
    unsafe { (*bindings::file_inode(file.as_ptr())).i_blocks }.saturating_mul(512)
}

/// Takes what is allocated in `range`, which is not empty, from the file: it is a hole then.
///
/// # Errors
///
/// `ENOSPC`, `EIO`, `EOPNOTSUPP` and what else the file system says.
pub(crate) fn release(file: &File, range: Range<u64>) -> Result {
    if extents(file, range.clone())? == Some(0) {
        return Ok(());
    }
    let start = i64::try_from(range.start).map_err(|_| EFBIG)?;
    let len = i64::try_from(range.end - range.start).map_err(|_| EFBIG)?;
    // SAFETY: The file is live.
    to_result(unsafe { bindings::vfs_fallocate(file.as_ptr(), bindings::PUNCH_HOLE, start, len) })
}
