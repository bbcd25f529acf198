// SPDX-License-Identifier: GPL-2.0

//! The page cache of a file of the store.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/fadvise.h`](srctree/include/linux/fadvise.h)

use crate::bindings;
use crate::kcompat::fs::File;
use core::ops::Range;
use kernel::error::to_result;
use kernel::prelude::*;

const TO_THE_END: i64 = i64::MAX;

fn mapping(file: &File) -> *mut bindings::address_space {
    // SAFETY: An open file's mapping does not change.
    unsafe { (*file.as_ptr()).f_mapping }
}

/// Whether any page of `range`, which is not empty, is in memory now.
pub(crate) fn holds_some(file: &File, range: &Range<u64>) -> bool {
    let place = |at: u64| i64::try_from(at).unwrap_or(TO_THE_END);
    // SAFETY: The file is live, and so is its mapping.
    unsafe {
        bindings::filemap_range_has_page(mapping(file), place(range.start), place(range.end - 1))
    }
}

/// Whether anything that was written since the file was opened has not come to its disk. Such data
/// may be gone from memory, and what is read in its place is not what was written. May be called in
/// interrupt context.
///
/// `file` must not have been synced meanwhile: what a sync has told is not told again.
pub(crate) fn has_lost_data(file: &File) -> bool {
    // SAFETY: The file is live, and so is its mapping; the function reads one word.
    let error =
        unsafe { bindings::errseq_check(&mut (*mapping(file)).wb_err, (*file.as_ptr()).f_wb_err) };
    error != 0
}

/// Tells how the whole file will be used.
fn advise(file: &File, advice: i32) -> Result {
    // SAFETY: The file is live.
    to_result(unsafe { bindings::vfs_fadvise(file.as_ptr(), 0, 0, advice) })
}

/// Has reads of the file bring in the pages that are read and no others: those around them may be
/// holes, and what is in memory is given back soon.
///
/// # Errors
///
/// What the file system says.
pub(crate) fn read_no_more_than_asked(file: &File) -> Result {
    advise(file, bindings::FADV_RANDOM)
}

/// Drops all pages. A page that is being read is waited for, one that is mapped is unmapped.
///
/// # Errors
///
/// `EBUSY` if one cannot be dropped: it is to be written, or a journal still needs it.
fn drop_pages(file: &File) -> Result {
    const LAST: kernel::ffi::c_ulong = kernel::ffi::c_ulong::MAX;
    // SAFETY: The file is live, and so is its mapping.
    to_result(unsafe { bindings::invalidate_inode_pages2_range(mapping(file), 0, LAST) })
}

/// Begins anew with a file that somebody has used before: writes what is only in memory to the disk,
/// waits for it, drops all pages as far as that can be done, and forgets what could not be written: from
/// now on [`has_lost_data`] tells of what is written from now on.
///
/// # Errors
///
/// `EIO`, `ENOSPC` and what else was said when data was written, now or before: it is lost. The file
/// can be used all the same.
pub(crate) fn start_over(file: &File) -> Result {
    // SAFETY: The file is live, and so is its mapping.
    let written = unsafe { bindings::filemap_write_and_wait_range(mapping(file), 0, TO_THE_END) };
    // What stays does no harm, see `allocation::written_ranges`.
    let _ = drop_pages(file);
    // SAFETY: The file is live.
    let failed = unsafe { bindings::file_check_and_advance_wb_err(file.as_ptr()) };
    to_result(written).and(to_result(failed))
}

/// Calls `call` while no page of the file is in memory and none comes in. `call` must take no lock that
/// comes before the mapping's `invalidate_lock`, such as the inode's.
///
/// # Errors
///
/// Of `call`; `EBUSY` if a page cannot be dropped.
pub(super) fn kept_empty<T>(file: &File, call: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: The file is live, and so is its mapping.
    unsafe { bindings::filemap_invalidate_lock(mapping(file)) };
    let result = drop_pages(file).and_then(|()| call());
    // SAFETY: Taken above.
    unsafe { bindings::filemap_invalidate_unlock(mapping(file)) };
    result
}

/// Writes all that is only in memory to the disk, and waits for it.
///
/// # Errors
///
/// `EIO`, `ENOSPC` and what else the file system says, now or since the file was opened; [`has_lost_data`] says so,
/// too, from then on. `EROFS` if nothing can be written to the file system any more: ext4 is so when its journal has
/// failed, and does not say of what it could not note there.
pub(crate) fn write_back(file: &File) -> Result {
    // SAFETY: The file is live, and so is its mapping.
    to_result(unsafe { bindings::filemap_write_and_wait_range(mapping(file), 0, TO_THE_END) })?;
    if has_lost_data(file) {
        return Err(EIO);
    }
    // SAFETY: An open file has an inode, which has a superblock.
    if unsafe { bindings::sb_rdonly((*bindings::file_inode(file.as_ptr())).i_sb) } {
        return Err(EROFS);
    }
    Ok(())
}

/// Lets the memory go of all that is on the disk, or could not be written.
///
/// # Errors
///
/// What the file system says.
pub(crate) fn give_back(file: &File) -> Result {
    // Not `invalidate_mapping_pages`: a page that a processor has yet to list is one in use for it.
    advise(file, bindings::FADV_DONTNEED)
}
