// SPDX-License-Identifier: GPL-2.0

//! Reads and writes of files of the store, directly or through the page cache.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h) (`struct kiocb`)

use crate::bindings;
use crate::fscache::termination::PendingRead;
use crate::fscache::termination::Termination;
use crate::kcompat::fs::File;
use crate::kcompat::iov::SourceIter;
use crate::kcompat::pinned::PinnedSource;
use crate::kcompat::types::ARef;
use crate::vfs::cred::Credentials;
use crate::vfs::page_cache;
use kernel::ffi::c_long;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;

/// How data gets to the file and back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Between the caller's memory and the disk.
    Direct,
    /// Through the page cache of the file.
    Cached,
}

impl Way {
    fn flags(self) -> i32 {
        match self {
            Way::Direct => bindings::IOCB_DIRECT_FLAG,
            Way::Cached => 0,
        }
    }
}

// SAFETY: All zeros is what the C side begins with, too: null pointers, numbers, an absent function.
const ZERO: bindings::kiocb = unsafe { core::mem::zeroed() };

/// The I/O priority of the current task. What a disk below this one makes of it, in a thread of its own, does not see
/// the task any more.
fn priority() -> u16 {
    // SAFETY: Reads the current task's.
    let priority = unsafe { bindings::get_current_ioprio() };
    u16::try_from(priority).unwrap_or(0)
}

/// A kiocb whose read or write is over when the call returns.
///
/// # Errors
///
/// `EFBIG`.
fn synchronous(way: Way, file: &File, pos: u64) -> Result<bindings::kiocb> {
    Ok(bindings::kiocb {
        ki_filp: file.as_ptr(),
        ki_pos: i64::try_from(pos).map_err(|_| EFBIG)?,
        ki_flags: way.flags(),
        ki_ioprio: priority(),
        ..ZERO
    })
}

/// A read on its way, owned by its submitter and, once it is queued, by its completion: file systems
/// look at the kiocb after the call that has queued it, when it may be completed already.
#[repr(C)]
struct ReadInFlight {
    /// First, so that a pointer to it is a pointer to the whole.
    iocb: Opaque<bindings::kiocb>,
    /// Taken out by whoever ends the read, which happens once.
    end: Opaque<Option<End>>,
}

/// How a read ends.
struct End {
    file: ARef<File>,
    len: usize,
    termination: Termination,
}

impl ReadInFlight {
    /// May run in interrupt context. The file's reference goes first: the one who is told may end
    /// the operation, and with it the cache.
    ///
    /// # Safety
    ///
    /// Called once for a read, by its completion or, if it was not queued, by its submitter.
    unsafe fn end(&self, ret: isize, was_async: bool) {
        // SAFETY: The caller is the only one who looks at it.
        let end = unsafe { (*self.end.get()).take() };
        if let Some(end) = end {
            end.end(ret, was_async);
        }
    }
}

impl End {
    /// The file's reference goes before the netfs is told. What a failed write has left behind is not
    /// looked at by whoever reads.
    fn end(self, ret: isize, was_async: bool) {
        let End {
            file,
            len,
            termination,
        } = self;
        let lost = page_cache::has_lost_data(&file);
        drop(file);
        let ret = if lost { EIO.to_errno() as isize } else { ret };
        termination.end_read(ret, len, was_async);
    }
}

/// # Safety
///
/// Called once by the file system, with the kiocb that it was given.
unsafe extern "C" fn read_complete(iocb: *mut bindings::kiocb, ret: c_long) {
    // SAFETY: `read` has given this reference away with the kiocb, the first field.
    let this = unsafe { Arc::from_raw(iocb.cast_const().cast::<ReadInFlight>()) };
    // SAFETY: The file system completes a kiocb once.
    unsafe { this.end(ret, true) };
}

/// Carries out `read` from `pos` on directly, and terminates it when all its bytes are there: when this returns it may
/// be on its way still. A short read is an error, and its rest is filled with zeros. `cred` is in force for the call,
/// not for the termination.
///
/// If anything that was written through the page cache since the file was opened is lost, the read fails.
/// That is asked whatever way fills go: a file system that cannot write directly uses the page cache instead, and
/// some do not wait for the disk then.
pub(crate) fn read_direct(cred: &Credentials, file: &File, pos: u64, read: PendingRead<'_>) {
    let Ok(pos) = i64::try_from(pos) else {
        return read.fail(EFBIG);
    };
    let iocb = bindings::kiocb {
        ki_filp: file.as_ptr(),
        ki_pos: pos,
        ki_flags: Way::Direct.flags(),
        ki_ioprio: priority(),
        ki_complete: Some(read_complete),
        ..ZERO
    };
    let in_flight = ReadInFlight {
        iocb: Opaque::new(iocb),
        end: Opaque::new(None),
    };
    let in_flight = cred.run(|| Arc::new(in_flight, GFP_KERNEL));
    let Ok(in_flight) = in_flight else {
        return read.fail(ENOMEM);
    };
    // SAFETY: The termination is called by the completion, once the file system is done with the buffer, or at the end of
    // this function.
    let (mut iter, termination) = unsafe { read.into_parts() };
    let end = End {
        file: file.into(),
        len: iter.len(),
        termination,
    };
    // SAFETY: Nobody else has the read yet.
    unsafe { *in_flight.end.get() = Some(end) };

    let completion = Arc::into_raw(in_flight.clone());
    let iocb = in_flight.iocb.get();
    // SAFETY: The kiocb lives as long as `in_flight`, and the completion's reference is given away
    // with it; the file is live during the call, since the caller holds it. The buffer is valid until the termination
    // is called, by the invariant of `PendingRead`, which the completion does.
    let ret =
        cred.run(|| unsafe { bindings::vfs_iocb_iter_read(file.as_ptr(), iocb, iter.as_ptr()) });
    if ret == -(bindings::EIOCBQUEUED as isize) {
        // All pages are part of the queued request; what lies beyond the end of the file is not
        // asked for by callers.
        iter.advance_to_end();
        return;
    }
    iter.zero_to_end();
    // SAFETY: The read was not queued, so the completion will not take its reference.
    drop(unsafe { Arc::from_raw(completion) });
    // SAFETY: Not queued, so that nobody else ends it.
    unsafe { in_flight.end(ret, false) };
}

/// The same through the page cache: all is there, and `termination` told, when it returns.
pub(crate) fn read_cached(cred: &Credentials, file: &File, pos: u64, read: PendingRead<'_>) {
    // SAFETY: The termination is called at the end of this function, with `end`.
    let (mut iter, termination) = unsafe { read.into_parts() };
    let end = End {
        file: file.into(),
        len: iter.len(),
        termination,
    };
    let ret = match synchronous(Way::Cached, file, pos) {
        Err(error) => error.to_errno() as isize,
        Ok(mut iocb) => {
            // SAFETY: Without `ki_complete` the read is over when the function returns.
            cred.run(|| unsafe {
                bindings::vfs_iocb_iter_read(file.as_ptr(), &mut iocb, iter.as_ptr())
            })
        }
    };
    iter.zero_to_end();
    end.end(ret, false);
}

/// Writes all of `iter` at `pos`, and tells the bytes written; fewer than all if something failed on
/// the way. A direct write waits for the disk.
///
/// A user's buffer is pinned before the write. The file system would do it below the file's lock,
/// which a page fault may need too: that of a task that has mapped a file of a served image. So the file system is never
/// given the user's addresses, which it would look up with `mmap_lock`, but the pages that are behind them.
///
/// # Errors
///
/// `EINVAL` if position, length or memory are not aligned as the file system wants
/// (`statx(STATX_DIOALIGN)`); `EFAULT`,
/// `ENOMEM`, `ENOSPC`, `EIO` and what else it says.
pub(crate) fn write(way: Way, file: &File, pos: u64, iter: &mut SourceIter<'_>) -> Result<usize> {
    /// Whole pages, so that what is left begins with one, too.
    const MAX_PINNED: usize = 4 << 20;
    if !iter.is_user_backed() {
        return write_once(way, file, pos, iter);
    }
    let mut written = 0;
    while iter.len() > 0 {
        let at = pos.checked_add(written as u64).ok_or(EFBIG)?;
        let step = PinnedSource::pin(iter, MAX_PINNED).and_then(|mut source| {
            let mut pinned = match way {
                Way::Direct => source.direct_iter()?,
                Way::Cached => source.iter(),
            };
            let written = write_once(way, file, at, &mut pinned)?;
            Ok((written, source.len()))
        });
        match step {
            Ok((part, pinned)) => {
                written += part;
                if part < pinned {
                    break;
                }
            }
            Err(error) if written == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(written)
}

fn write_once(way: Way, file: &File, pos: u64, iter: &mut SourceIter<'_>) -> Result<usize> {
    let mut iocb = synchronous(way, file, pos)?;
    iocb.ki_flags |= bindings::IOCB_WRITE_FLAG;
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
