// SPDX-License-Identifier: GPL-2.0

//! Completions.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)
//!
//! Upstream: `kernel::sync::Completion`, since 6.17; it has no wait that is killed, which is what keeps this file.

use crate::bindings;
use kernel::prelude::*;
use kernel::types::Opaque;

/// Something that happens once, and tasks that wait for it.
///
/// # Invariants
///
/// The inner completion is initialised and does not move.
#[pin_data]
pub(crate) struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: A `struct completion` may be used from any thread; it has its own lock.
unsafe impl Send for Completion {}
// SAFETY: As above.
unsafe impl Sync for Completion {}

impl Completion {
    /// A completion that has not happened.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, the pin-init protocol says so.
                unsafe { bindings::init_completion(slot) }
            }),
        })
    }

    /// Wakes all who wait, now or when they come. May be called in any context.
    pub(crate) fn complete_all(&self) {
        // SAFETY: `self.inner` is initialised by the type invariant.
        unsafe { bindings::complete_all(self.inner.get()) }
    }

    /// Sleeps until it has happened. Frozen tasks may freeze here.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if the task was killed first.
    pub(crate) fn wait_killable_freezable(&self) -> Result {
        // SAFETY: `self.inner` is initialised by the type invariant; the caller may sleep, since
        // only tasks call this.
        kernel::error::to_result(unsafe {
            bindings::wait_for_completion_killable_freezable(self.inner.get())
        })
    }
}
