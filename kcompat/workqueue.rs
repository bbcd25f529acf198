// SPDX-License-Identifier: GPL-2.0

//! Workqueues of one's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)
//!
//! Upstream: nothing up to 7.1, whose `kernel::workqueue` has the system's queues.

use crate::bindings;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::new_condvar;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::CondVar;
use kernel::sync::SpinLock;
use kernel::workqueue::Queue;

/// A workqueue that is drained and destroyed when it is dropped, once no work waits for its time on it.
///
/// # Invariants
///
/// The pointer is a live workqueue that this value owns.
pub(crate) struct OwnedQueue {
    queue: NonNull<bindings::workqueue_struct>,
    delayed: Pin<KBox<Delayed>>,
}

/// What waits for its time on a queue.
#[pin_data]
struct Delayed {
    #[pin]
    count: SpinLock<Count>,
    #[pin]
    none: CondVar,
}

struct Count {
    works: usize,
    /// The queue is being destroyed.
    closed: bool,
}

/// A work that is queued for a time, and has not begun to run. Its queue is not destroyed before this is dropped.
pub(crate) struct Waiting(&'static OwnedQueue);

impl Drop for Waiting {
    fn drop(&mut self) {
        let Delayed { count, none } = &*self.0.delayed;
        let mut count = count.lock();
        count.works -= 1;
        // Below the lock: when it is free, the queue may go.
        if count.works == 0 && count.closed {
            none.notify_all();
        }
    }
}

// SAFETY: A workqueue may be used, and destroyed, from any thread.
unsafe impl Send for OwnedQueue {}
// SAFETY: As above.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Takes over a new workqueue, or null.
    fn owning(queue: *mut bindings::workqueue_struct) -> Result<Self> {
        let queue = NonNull::new(queue).ok_or(ENOMEM)?;
        let count = Count {
            works: 0,
            closed: false,
        };
        let delayed = pin_init!(Delayed {
            count <- new_spinlock!(count, "cachefiles_waiting"),
            none <- new_condvar!("cachefiles_none_waits"),
        });
        let delayed = KBox::pin_init(delayed, GFP_KERNEL).inspect_err(|_| {
            // SAFETY: The queue is ours, and nobody has it.
            unsafe { bindings::destroy_workqueue(queue.as_ptr()) }
        })?;
        // INVARIANT: The queue was just made, and belongs to nobody else.
        Ok(OwnedQueue { queue, delayed })
    }

    /// Notes that a work is about to wait for its time; `None` if the queue is being destroyed.
    pub(super) fn begin_to_wait(&'static self) -> Option<Waiting> {
        let mut count = self.delayed.count.lock();
        if count.closed {
            return None;
        }
        count.works += 1;
        Some(Waiting(self))
    }

    /// The C structure.
    pub(super) fn as_ptr(&self) -> *mut bindings::workqueue_struct {
        self.queue.as_ptr()
    }

    /// A queue whose work may run on any processor, with a thread of its own for times without
    /// memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new_unbound(name: &CStr) -> Result<Self> {
        // SAFETY: `name` is a string; the queue keeps a copy of it.
        let queue = unsafe { bindings::alloc_unbound_workqueue(name.as_char_ptr()) };
        Self::owning(queue)
    }

    /// The same, for work that writes to disks: it stands still while the machine is suspended.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new_freezable(name: &CStr) -> Result<Self> {
        // SAFETY: `name` is a string; the queue keeps a copy of it.
        let queue = unsafe { bindings::alloc_freezable_workqueue(name.as_char_ptr()) };
        Self::owning(queue)
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: The queue lives as long as `self` by the type invariant.
        unsafe { Queue::from_raw(self.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    /// Waits for what waits, as long as that takes: who queues for later is to [shut] it before.
    ///
    /// [shut]: super::delayed_work::DelayedWork::shut
    fn drop(&mut self) {
        let mut count = self.delayed.count.lock();
        count.closed = true;
        while count.works > 0 {
            self.delayed.none.wait(&mut count);
        }
        drop(count);
        // SAFETY: The queue is owned by the type invariant; what is queued is run first.
        unsafe { bindings::destroy_workqueue(self.as_ptr()) }
    }
}
