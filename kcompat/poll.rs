// SPDX-License-Identifier: GPL-2.0

//! Wait queues that tasks sleep on and that `poll` watches.
//!
//! C headers: [`include/linux/poll.h`](srctree/include/linux/poll.h),
//! [`include/linux/wait.h`](srctree/include/linux/wait.h)
//!
//! Upstream: `kernel::sync::poll`, since 6.13; it has no wait that can be frozen and killed, which is what keeps this
//! file.

use crate::bindings;
use crate::kcompat::fs::File;
use core::marker::PhantomData;
use kernel::ffi::c_void;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The bits that a poll reports, `EPOLL*`.
pub(crate) mod mask {
    use crate::bindings;

    /// There is something to read.
    pub(crate) const IN: u32 = bindings::EPOLLIN;

    /// There is something to do: the cache wants culling.
    pub(crate) const OUT: u32 = bindings::EPOLLOUT;
}

/// Where a `poll` in progress notes the queues that it has to watch.
///
/// `'a` is how long the file's private data is borrowed, and neither longer nor shorter than that: what lives as long,
/// whoever chooses it, is static or part of that data, and is there until the file is released.
///
/// # Invariants
///
/// The pointer is null or valid for `'a`; `file` is the file that is polled.
pub(crate) struct PollTable<'a> {
    file: &'a File,
    table: *mut bindings::poll_table_struct,
    /// Invariant in `'a`.
    _lifetime: PhantomData<fn(&'a ()) -> &'a ()>,
}

impl<'a> PollTable<'a> {
    /// # Safety
    ///
    /// `table` is null or valid for `'a`, and the private data of `file` is borrowed for it and dropped when the file
    /// is released.
    pub(crate) unsafe fn from_raw(file: &'a File, table: *mut bindings::poll_table_struct) -> Self {
        // INVARIANT: The caller promises it.
        PollTable {
            file,
            table,
            _lifetime: PhantomData,
        }
    }

    /// Has `queue` watched.
    pub(crate) fn register_wait(&self, queue: &'a WaitQueue) {
        // SAFETY: The file is live and the table is valid or null by the type invariant, the queue is initialised. It
        // stays until the file is released, as the type says. `poll` and `select` hold the file while they watch the
        // queue, and epoll leaves it before the file is released (`eventpoll_release`).
        unsafe { bindings::poll_wait(self.file.as_ptr(), queue.inner.get(), self.table) }
    }
}

/// A wait queue head.
///
/// # Invariants
///
/// The inner head is initialised and does not move.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    inner: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue head may be used from any thread; it has its own lock.
unsafe impl Send for WaitQueue {}
// SAFETY: As above.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// An empty queue.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, the pin-init protocol says so.
                unsafe { bindings::init_wait_queue(slot) }
            }),
        })
    }

    /// Wakes everybody who polls, and one of those who wait exclusively (`EPOLLEXCLUSIVE`).
    pub(crate) fn wake_one(&self, mask: u32) {
        // SAFETY: The queue is initialised by the type invariant.
        unsafe { bindings::wake_up_poll(self.inner.get(), mask) }
    }

    /// Wakes everybody.
    pub(crate) fn wake_all(&self, mask: u32) {
        // SAFETY: The queue is initialised by the type invariant.
        unsafe { bindings::wake_up_all_poll(self.inner.get(), mask) }
    }

    /// Sleeps until `condition` holds; it is asked again after each wake-up, and may take locks
    /// that do not sleep. Frozen tasks may freeze here.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if the task was killed first.
    pub(crate) fn wait_killable_freezable<F: FnMut() -> bool>(&self, mut condition: F) -> Result {
        /// # Safety
        ///
        /// Called by the shim alone, with what was passed beside it.
        unsafe extern "C" fn holds<F: FnMut() -> bool>(condition: *mut c_void) -> bool {
            // SAFETY: The shim passes back the pointer to `condition` below, which outlives the
            // wait and is used by nobody else meanwhile.
            unsafe { (*condition.cast::<F>())() }
        }
        // SAFETY: The queue is initialised; `holds` takes what is passed beside it.
        kernel::error::to_result(unsafe {
            bindings::wait_event_killable_freezable(
                self.inner.get(),
                Some(holds::<F>),
                core::ptr::addr_of_mut!(condition).cast(),
            )
        })
    }
}
