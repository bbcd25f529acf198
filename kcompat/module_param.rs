// SPDX-License-Identifier: GPL-2.0

//! Module parameters: 6.12's `module!` has none, so that they are declared in a shim.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)
//!
//! Upstream: `params` of `module!`, since 6.19, which are numbers; it has no strings, not in 7.1 either, which is what
//! keeps this file.

use crate::bindings;
use kernel::prelude::*;

/// `device_name`: what the device is called below `/dev`. Read-only once the module is loaded.
pub(crate) fn device_name() -> &'static CStr {
    // SAFETY: The parameter is a string that is not changed, nor freed before the module is.
    unsafe { CStr::from_char_ptr(bindings::device_name()) }
}
