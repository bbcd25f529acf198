// SPDX-License-Identifier: GPL-2.0

//! File descriptors.
//!
//! C header: [`include/linux/file.h`](srctree/include/linux/file.h)
//!
//! Upstream: `kernel::fs::FileDescriptorReservation`, since 6.13. This file can go when 6.12 is not built for.

use crate::bindings;
use crate::kcompat::fs::File;
use crate::kcompat::types::ARef;
use core::marker::PhantomData;
use kernel::prelude::*;

/// The descriptor is closed by `execve(2)`.
pub(crate) const O_CLOEXEC: u32 = bindings::O_CLOEXEC;

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
