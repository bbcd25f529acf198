// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the cache side of fscache.
//!
//! C headers: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h),
//! [`include/linux/netfs.h`](srctree/include/linux/netfs.h); see also
//! `Documentation/filesystems/caching/backend-api.rst`.

pub(crate) mod attachment;
pub(crate) mod backend;
pub(crate) mod cache;
pub(crate) mod cookie;
pub(crate) mod netfs;
pub(crate) mod resources;
pub(crate) mod stats;
pub(crate) mod termination;
pub(crate) mod volume;
mod vtable;

use kernel::ffi::c_void;

/// Waits until everybody has left the module, which nobody can enter any more. fscache does not pin a backend's
/// module: whoever has called one of its functions may be on his way out of it when that function's effect has let the
/// last user go. Those are fscache's workers, and the tasks of netfs's and readers, `free_volume` and `end_operation`
/// among what they call: they sleep no more on that way, but may have been preempted.
pub(crate) fn wait_for_callers() {
    // SAFETY: The queue lives as long as fscache, which this module uses.
    unsafe { crate::bindings::flush_fscache_wq() }
    // SAFETY: Waits, in a task that may: until each task was seen in user space, idle, or where it sleeps or yields by
    // itself; the kernel cannot preempt a task if it has no such wait, and `synchronize_rcu` is that then.
    unsafe { crate::bindings::wait_for_rcu_tasks() }
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
