// SPDX-License-Identifier: GPL-2.0

//! Open files.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! Upstream: `kernel::fs::File`, since 6.13. This file can go when 6.12 is not built for.

use crate::bindings;
use crate::kcompat::types::ARef;
use crate::kcompat::types::AlwaysRefCounted;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::types::Opaque;

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
