// SPDX-License-Identifier: GPL-2.0

//! Messages that must not flood the log.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)
//!
//! Upstream: `pr_warn_once!` and the like, in 7.1, for `Once`; nothing for a rate.

use crate::bindings;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering;

/// Something that is said once.
pub(crate) struct Once(AtomicBool);

impl Once {
    /// Not said yet.
    pub(crate) const fn new() -> Self {
        Once(AtomicBool::new(false))
    }

    /// Whether this is the first time.
    pub(crate) fn first(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// Whether a message that may come often, such as that of a failed read, may be printed now: 10 in 5
/// seconds.
pub(crate) fn ratelimit() -> bool {
    // SAFETY: The rate is kept in a static of the shim.
    unsafe { bindings::ratelimit() }
}
