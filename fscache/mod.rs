// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the cache side of fscache.
//!
//! C headers: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h),
//! [`include/linux/netfs.h`](srctree/include/linux/netfs.h); see also
//! `Documentation/filesystems/caching/backend-api.rst`.

pub(crate) mod backend;
pub(crate) mod cache;
pub(crate) mod cookie;
pub(crate) mod netfs;
pub(crate) mod stats;
pub(crate) mod termination;
pub(crate) mod volume;

use kernel::ffi::c_void;

/// Waits until fscache's workers have left the backend. fscache does not pin a backend's module: a
/// worker may be on its way out of a function whose effect has let the last user go.
pub(crate) fn flush_workers() {
    // SAFETY: The queue lives as long as fscache, which this module uses.
    unsafe { crate::bindings::flush_fscache_wq() }
}

/// Takes a private pointer out of its place.
///
/// # Safety
///
/// `place` is valid, and used by nobody else.
unsafe fn take_pointer(place: *mut *mut c_void) -> *mut c_void {
    // SAFETY: Promised by the caller.
    unsafe { place.replace(core::ptr::null_mut()) }
}
