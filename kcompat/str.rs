// SPDX-License-Identifier: GPL-2.0

//! Strings of C, which are the kernel crate's own type up to 6.18, and `core`'s since 6.19.
//!
//! Upstream: `CStr::to_bytes`. This file can go when 6.18 is not built for.

use kernel::prelude::*;

/// The bytes before the NUL.
pub(crate) fn to_bytes(string: &CStr) -> &[u8] {
    // SAFETY: Both types are of strings that end with a NUL; the result borrows `string`.
    unsafe { core::ffi::CStr::from_ptr(string.as_char_ptr().cast()) }.to_bytes()
}
