// SPDX-License-Identifier: GPL-2.0

//! Direct reads and writes of files of the store.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h) (`struct kiocb`)

use crate::bindings;
use crate::fscache::termination::Termination;
use crate::kcompat::fs::File;
use crate::kcompat::iov::IovIter;
use kernel::ffi::c_long;
use kernel::prelude::*;
use kernel::types::ARef;

const ZERO: bindings::kiocb = bindings::kiocb {
    ki_filp: core::ptr::null_mut(),
    ki_pos: 0,
    ki_complete: None,
    private: core::ptr::null_mut(),
    ki_flags: 0,
    ki_ioprio: 0,
    // SAFETY: All zeros is what the C side begins with, too.
    __bindgen_anon_1: unsafe { core::mem::zeroed() },
};

/// A read on its way. Whoever completes it owns it.
#[repr(C)]
struct ReadInFlight {
    /// First, so that a pointer to it is a pointer to the whole.
    iocb: bindings::kiocb,
    file: ARef<File>,
    len: usize,
    termination: Termination,
}

impl ReadInFlight {
    /// May run in interrupt context. The file's reference goes first: the one who is told may end
    /// the operation, and with it the cache.
    fn end(this: KBox<Self>, ret: isize, was_async: bool) {
        let ReadInFlight {
            file,
            len,
            termination,
            ..
        } = KBox::into_inner(this);
        drop(file);
        termination.end_read(ret, len, was_async);
    }
}

/// # Safety
///
/// Called once by the file system, with the kiocb that it was given.
unsafe extern "C" fn read_complete(iocb: *mut bindings::kiocb, ret: c_long) {
    // SAFETY: `read` has given the box away with the kiocb, which is its first field; a kiocb is
    // completed once.
    let this = unsafe { KBox::from_raw(iocb.cast::<ReadInFlight>()) };
    ReadInFlight::end(this, ret, true);
}

/// Reads `iter.len()` bytes from `pos` on, and tells `termination` when all are there. When this
/// returns `iter` is consumed, though it may not be filled yet; a short read is an error, and its
/// rest is filled with zeros.
pub(crate) fn read(file: &File, pos: u64, iter: &mut IovIter, termination: Termination) {
    let len = iter.len();
    let Ok(pos) = i64::try_from(pos) else {
        iter.zero_to_end();
        return termination.end(EFBIG.to_errno() as isize, false);
    };
    let Ok(space) = KBox::<ReadInFlight>::new_uninit(GFP_KERNEL) else {
        iter.zero_to_end();
        return termination.end(ENOMEM.to_errno() as isize, false);
    };
    let in_flight = space.write(ReadInFlight {
        iocb: bindings::kiocb {
            ki_filp: file.as_ptr(),
            ki_pos: pos,
            ki_flags: bindings::IOCB_DIRECT_FLAG,
            ki_complete: Some(read_complete),
            ..ZERO
        },
        file: file.into(),
        len,
        termination,
    });
    let raw = KBox::into_raw(in_flight);
    // SAFETY: `raw` is a live kiocb that is given away; the file is live during the call, since
    // the caller holds it.
    let ret = unsafe { bindings::vfs_iocb_iter_read(file.as_ptr(), raw.cast(), iter.as_ptr()) };
    if ret == -(bindings::EIOCBQUEUED as isize) {
        // All pages are part of the queued request; what lies beyond the end of the file is not
        // asked for by callers.
        iter.advance_to_end();
        return;
    }
    iter.zero_to_end();
    // SAFETY: The read was not queued, so its box is ours again.
    ReadInFlight::end(unsafe { KBox::from_raw(raw) }, ret, false);
}

/// Writes all of `iter` at `pos`, waits for it, and tells the bytes written.
///
/// # Errors
///
/// `EINVAL` if position, length or memory are not aligned as the file system wants; `ENOSPC`,
/// `EIO` and what else it says.
pub(crate) fn write(file: &File, pos: u64, iter: &mut IovIter) -> Result<usize> {
    let mut iocb = bindings::kiocb {
        ki_filp: file.as_ptr(),
        ki_pos: i64::try_from(pos).map_err(|_| EFBIG)?,
        ki_flags: bindings::IOCB_DIRECT_FLAG | bindings::IOCB_WRITE_FLAG,
        ..ZERO
    };
    // SAFETY: Without `ki_complete` the write is over when the function returns.
    let ret = unsafe { bindings::vfs_iocb_iter_write(file.as_ptr(), &mut iocb, iter.as_ptr()) };
    usize::try_from(ret).map_err(|_| Error::from_errno(restartable(ret)))
}

/// A system call that has moved data cannot be restarted: those errors become `EINTR`.
fn restartable(ret: isize) -> i32 {
    const FIRST: isize = -(bindings::ERESTART_RESTARTBLOCK as isize);
    const LAST: isize = -(bindings::ERESTARTSYS as isize);
    if (FIRST..=LAST).contains(&ret) {
        EINTR.to_errno()
    } else {
        i32::try_from(ret).unwrap_or(-5)
    }
}
