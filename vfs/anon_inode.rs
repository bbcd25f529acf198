// SPDX-License-Identifier: GPL-2.0

//! Files that are on no file system.
//!
//! C headers: [`include/linux/anon_inodes.h`](srctree/include/linux/anon_inodes.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::bindings;
use crate::kcompat::fs::File;
use crate::kcompat::iov::SourceIter;
use crate::kcompat::miscdevice::returned;
use crate::kcompat::miscdevice::ZERO;
use crate::kcompat::types::into_foreign;
use crate::kcompat::types::ARef;
use crate::vfs::store_file::Whence;
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::ffi::c_int;
use kernel::ffi::c_long;
use kernel::ffi::c_uint;
use kernel::prelude::*;
use kernel::types::ForeignOwnable;

/// What an anonymous file that is only written does. Every method runs in the calling task and may
/// sleep.
pub(crate) trait AnonFile: Send + Sync + 'static {
    /// Writes all of `from` at `pos` and tells the bytes written.
    fn write(&self, pos: u64, from: &mut SourceIter<'_>) -> Result<usize>;
    /// Tells the place that is asked for, from byte `offset` on.
    fn seek(&self, offset: i64, whence: Whence) -> Result<i64>;
    /// `ioctl(2)`; takes and returns numbers alone.
    fn ioctl(&self, command: u32, argument: usize) -> Result;
    /// The file's last reference is gone.
    fn release(self: KBox<Self>);
}

/// Makes a write-only file that can be positioned.
///
/// If the file is never installed, [`AnonFile::release`] is called as for any other.
///
/// # Errors
///
/// `ENFILE`, `ENOMEM`; `private` is dropped without `release`.
pub(crate) fn write_only<T: AnonFile>(name: &CStr, private: KBox<T>) -> Result<ARef<File>> {
    let private = into_foreign(private);
    // SAFETY: The name is a string, the table is static, and the file owns `private`.
    let file = unsafe {
        bindings::anon_inode_getfile_fmode(
            name.as_char_ptr(),
            &Operations::<T>::TABLE,
            private,
            bindings::O_WRONLY as c_int,
            bindings::FMODE_PWRITE | bindings::FMODE_LSEEK,
        )
    };
    // SAFETY: The function returns an error pointer or a reference.
    let file = unsafe { File::from_err_ptr(file) };
    if file.is_err() {
        // SAFETY: No file was made, so nobody has taken the box.
        drop(unsafe { KBox::<T>::from_foreign(private) });
    }
    file
}

struct Operations<T>(PhantomData<T>);

impl<T: AnonFile> Operations<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: crate::THIS_MODULE.as_ptr(),
        release: Some(Self::release),
        write_iter: Some(Self::write_iter),
        llseek: Some(Self::llseek),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: Some(Self::ioctl),
        ..ZERO
    };

    /// # Safety
    ///
    /// `file` is a live file of this table, for `'a`.
    unsafe fn private<'a>(file: *mut bindings::file) -> &'a T {
        // SAFETY: `write_only` has put a box there, which stays until `release`.
        unsafe { KBox::borrow((*file).private_data) }
    }

    /// # Safety
    ///
    /// Called by the VFS alone, through the table, for a file of this table.
    unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `write_only` has put a box there, and nobody uses the file any more.
        T::release(unsafe { KBox::from_foreign((*file).private_data) });
        0
    }

    /// # Safety
    ///
    /// Called by the VFS alone, through the table, for a file of this table.
    unsafe extern "C" fn write_iter(
        iocb: *mut bindings::kiocb,
        from: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The caller's kiocb is ours during the call.
        let iocb = unsafe { &mut *iocb };
        // SAFETY: The kiocb holds its file.
        let private = unsafe { Self::private(iocb.ki_filp) };
        let Ok(pos) = u64::try_from(iocb.ki_pos) else {
            return EINVAL.to_errno() as isize;
        };
        let Some(from) = NonNull::new(from) else {
            return EINVAL.to_errno() as isize;
        };
        // SAFETY: The caller's iterator is the source of a write, and ours during the call, with its bytes.
        let mut from = unsafe { SourceIter::from_raw(from) };
        let written = private.write(pos, &mut from);
        if let Ok(bytes) = written {
            iocb.ki_pos += i64::try_from(bytes).unwrap_or(0);
        }
        returned(written)
    }

    /// # Safety
    ///
    /// Called by the VFS alone, through the table, for a file of this table.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // SAFETY: The caller holds the file.
        let private = unsafe { Self::private(file) };
        let target = match u32::try_from(whence).unwrap_or(u32::MAX) {
            bindings::SEEK_SET => Ok(offset),
            // SAFETY: The caller holds the file; its position is a plain number.
            bindings::SEEK_CUR => unsafe { (*file).f_pos }.checked_add(offset).ok_or(EINVAL),
            bindings::SEEK_END => private.seek(offset, Whence::End),
            bindings::SEEK_DATA => private.seek(offset, Whence::Data),
            bindings::SEEK_HOLE => private.seek(offset, Whence::Hole),
            _ => Err(EINVAL),
        };
        match target {
            // SAFETY: The caller holds the file.
            Ok(target) => unsafe { bindings::vfs_setpos(file, target, i64::MAX) },
            Err(error) => i64::from(error.to_errno()),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS alone, through the table, for a file of this table.
    unsafe extern "C" fn ioctl(
        file: *mut bindings::file,
        command: c_uint,
        argument: usize,
    ) -> c_long {
        // SAFETY: The caller holds the file.
        match unsafe { Self::private(file) }.ioctl(command, argument) {
            Ok(()) => 0,
            Err(error) => error.to_errno() as c_long,
        }
    }
}
