// SPDX-License-Identifier: GPL-2.0

//! Workqueues of one's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::workqueue::Queue;

/// A workqueue that is drained and destroyed when it is dropped.
///
/// # Invariants
///
/// The pointer is a live workqueue that this value owns.
pub(crate) struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue may be used, and destroyed, from any thread.
unsafe impl Send for OwnedQueue {}
// SAFETY: As above.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// A queue whose work may run on any processor, with a thread of its own for times without
    /// memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new_unbound(name: &CStr) -> Result<Self> {
        // SAFETY: `name` is a string; the queue keeps a copy of it.
        let queue = unsafe { bindings::alloc_unbound_workqueue(name.as_char_ptr()) };
        // INVARIANT: The queue was just made, and belongs to nobody else.
        NonNull::new(queue).map(OwnedQueue).ok_or(ENOMEM)
    }

    /// The same, for work that writes to disks: it stands still while the machine is suspended.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new_freezable(name: &CStr) -> Result<Self> {
        // SAFETY: `name` is a string; the queue keeps a copy of it.
        let queue = unsafe { bindings::alloc_freezable_workqueue(name.as_char_ptr()) };
        // INVARIANT: As above.
        NonNull::new(queue).map(OwnedQueue).ok_or(ENOMEM)
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: The queue lives as long as `self` by the type invariant.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: The queue is owned by the type invariant; what is queued is run first.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}
