// SPDX-License-Identifier: GPL-2.0

//! Open files and file descriptors.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/file.h`](srctree/include/linux/file.h)
//!
//! Upstream: `kernel::fs::File` and `FileDescriptorReservation`, since 6.13. This file can go when 6.12 is not built for.

use crate::bindings;
use crate::kcompat::types::ARef;
use crate::kcompat::types::AlwaysRefCounted;
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The descriptor is closed by `execve(2)`.
pub(crate) const O_CLOEXEC: u32 = bindings::O_CLOEXEC;

/// An open file.
///
/// # Invariants
///
/// Its reference count is above zero while a reference to it exists.
#[repr(transparent)]
pub(crate) struct File(Opaque<bindings::file>);

// SAFETY: A `struct file` may be used from any thread.
unsafe impl Send for File {}
// SAFETY: As above; what is read here does not change while the file is open.
unsafe impl Sync for File {}

// SAFETY: `get_file` and `fput` count references; `fput` may be called in any context.
unsafe impl AlwaysRefCounted for File {
    fn inc_ref(&self) {
        // SAFETY: The existence of `self` shows that the count is above zero.
        unsafe { bindings::get_file(self.as_ptr()) };
    }

    unsafe fn dec_ref(file: NonNull<Self>) {
        // SAFETY: The caller gives away a reference that it owns.
        unsafe { bindings::fput(file.cast().as_ptr()) }
    }
}

impl File {
    /// # Safety
    ///
    /// `file` is a live file for `'a`.
    pub(crate) unsafe fn from_raw<'a>(file: *mut bindings::file) -> &'a Self {
        // SAFETY: `File` is transparent over `struct file`, the rest is promised by the caller.
        unsafe { &*file.cast() }
    }

    /// Takes over a reference as a function of the kernel returns it.
    ///
    /// # Safety
    ///
    /// `file` is an error pointer or a live file with a reference that the caller gives away.
    pub(crate) unsafe fn from_err_ptr(file: *mut bindings::file) -> Result<ARef<Self>> {
        let file = kernel::error::from_err_ptr(file)?;
        let file = NonNull::new(file.cast()).ok_or(ENOENT)?;
        // SAFETY: The caller gives its reference away.
        Ok(unsafe { ARef::from_raw(file) })
    }

    /// The C structure.
    pub(crate) fn as_ptr(&self) -> *mut bindings::file {
        self.0.get()
    }
}

/// A number in the current task's table of file descriptors, not visible yet.
///
/// # Invariants
///
/// `fd` is reserved in the current task's table, and the value does not leave that task.
pub(crate) struct FileDescriptorReservation {
    fd: u32,
    _not_send: PhantomData<*mut ()>,
}

impl FileDescriptorReservation {
    /// Reserves a number; `flags` are those of `open(2)` that concern a descriptor.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the process's limit, `ENOMEM`.
    pub(crate) fn get_unused_fd_flags(flags: u32) -> Result<Self> {
        // SAFETY: Called by a task with a table of files: in a system call.
        let fd = unsafe { bindings::get_unused_fd_flags(flags) };
        let fd = u32::try_from(fd).map_err(|_| Error::from_errno(fd))?;
        // INVARIANT: The number was just reserved.
        Ok(FileDescriptorReservation {
            fd,
            _not_send: PhantomData,
        })
    }

    /// The number.
    pub(crate) fn reserved_fd(&self) -> u32 {
        self.fd
    }

    /// Makes the number name `file`. From now on the process may use, and close, it.
    pub(crate) fn fd_install(self, file: ARef<File>) {
        // SAFETY: The number is reserved in this task by the type invariant, and the reference to
        // the file is given away.
        unsafe { bindings::fd_install(self.fd, ARef::into_raw(file).cast().as_ptr()) };
        core::mem::forget(self);
    }
}

impl Drop for FileDescriptorReservation {
    fn drop(&mut self) {
        // SAFETY: The number is reserved in this task by the type invariant.
        unsafe { bindings::put_unused_fd(self.fd) }
    }
}
