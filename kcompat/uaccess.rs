// SPDX-License-Identifier: GPL-2.0

//! Addresses of user space.
//!
//! Upstream: `kernel::uaccess::UserPtr`, a type of its own since 6.17; before, it is a number. This file can go when
//! 6.16 is not built for.

use kernel::ffi::c_char;
use kernel::ffi::c_void;
use kernel::uaccess::UserPtr;

/// What the type has, for the number; its own functions come first.
#[allow(dead_code, reason = "where it is a type, that has them")]
trait Address {
    fn from_ptr(pointer: *mut c_void) -> Self;
    fn wrapping_byte_add(self, bytes: usize) -> Self;
}

impl Address for usize {
    fn from_ptr(pointer: *mut c_void) -> Self {
        pointer as usize
    }

    fn wrapping_byte_add(self, bytes: usize) -> Self {
        self.wrapping_add(bytes)
    }
}

/// The address that a system call was given.
pub(super) fn from_argument(pointer: *const c_char) -> UserPtr {
    UserPtr::from_ptr(pointer.cast_mut().cast())
}

/// The address so many bytes behind `start`.
pub(crate) fn behind(start: UserPtr, bytes: usize) -> UserPtr {
    start.wrapping_byte_add(bytes)
}
