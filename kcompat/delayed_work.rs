// SPDX-License-Identifier: GPL-2.0

//! Work items that wait for a time: `DelayedWork`, as newer kernel crates have it, but bound to one queue.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)
//!
//! Upstream: `kernel::workqueue::DelayedWork`, since 6.18 at the latest; what waits cannot be cancelled, not in 7.1
//! either, which is what keeps this file.
//!
//! A queue that is destroyed runs what is queued, but does not know what waits for its time. So each work that
//! waits holds a [`Waiting`], without which its queue does not go; and a work that was [shut](DelayedWork::shut)
//! is never queued again, whoever asks for it, and with whatever lock.

use crate::bindings;
use crate::kcompat::workqueue::OwnedQueue;
use crate::kcompat::workqueue::Waiting;
use core::marker::PhantomData;
use core::mem::offset_of;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::SpinLock;
use kernel::types::Opaque;

/// Processor number that leaves the choice to the queue (`WORK_CPU_UNBOUND`).
const ANY_CPU: i32 = bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32;

/// A field of `T` with which `T` is queued for later. While it waits, it owns a reference to `T`.
///
/// # Invariants
///
/// The inner work is initialised, does not move, and is queued, with a reference to `T` that belongs to it,
/// only between the moment when `state` gets a [`Waiting`] and the one when that is taken out.
#[pin_data]
pub(crate) struct DelayedWork<T, const ID: u64> {
    #[pin]
    inner: Opaque<bindings::delayed_work>,
    queue: &'static OwnedQueue,
    /// May be taken below any other lock but a queue's.
    #[pin]
    state: SpinLock<State>,
    _owner: PhantomData<fn(T)>,
}

struct State {
    /// It is queued, and has not begun to run.
    waiting: Option<Waiting>,
    /// It is not to be queued any more.
    shut: bool,
}

// SAFETY: Delayed work is used from any thread; it has its own locks.
unsafe impl<T, const ID: u64> Send for DelayedWork<T, ID> {}
// SAFETY: As above.
unsafe impl<T, const ID: u64> Sync for DelayedWork<T, ID> {}

/// Declares that a type has a [`DelayedWork`] field. Made by [`impl_has_delayed_work`].
///
/// # Safety
///
/// `delayed_work` gives the field that lies `OFFSET` bytes from the start of the type.
pub(crate) unsafe trait HasDelayedWork<const ID: u64>: Sized {
    const OFFSET: usize;

    /// The field.
    fn delayed_work(&self) -> &DelayedWork<Self, ID>;
}

/// What is done when the time has come.
pub(crate) trait DelayedWorkItem<const ID: u64>: HasDelayedWork<ID> {
    /// Runs on the work's queue.
    fn run(this: Arc<Self>);
}

impl<T, const ID: u64> DelayedWork<T, ID>
where
    T: DelayedWorkItem<ID>,
    Arc<T>: Send + 'static,
{
    /// Work that is not queued, and will run on `queue`.
    pub(crate) fn new(queue: &'static OwnedQueue) -> impl PinInit<Self> {
        let state = State {
            waiting: None,
            shut: false,
        };
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, the pin-init protocol says so; `run` is made
                // for the work inside.
                unsafe { bindings::init_delayed_work(slot, Some(Self::run)) }
            }),
            queue,
            state <- new_spinlock!(state, "cachefiles_delayed"),
            _owner: PhantomData,
        })
    }

    /// Queues `owner` to run after so many ticks (see [`jiffies`](super::time::jiffies), at most
    /// 2^30). Does nothing if it waits already, even for longer, or was shut. May be called under a spinlock.
    pub(crate) fn enqueue(owner: &Arc<T>, ticks: u64) {
        let this = owner.delayed_work();
        let mut state = this.state.lock();
        if state.shut || state.waiting.is_some() {
            return;
        }
        let Some(waiting) = this.queue.begin_to_wait() else {
            return;
        };
        // INVARIANT: What is queued below has its `Waiting`, and owns this reference.
        state.waiting = Some(waiting);
        let _ = Arc::into_raw(owner.clone());
        // A day fits into 32 bits.
        let ticks = usize::try_from(ticks).unwrap_or(usize::MAX);
        // SAFETY: The queue lives as long as there is a `Waiting`. The work is initialised and not queued, by the
        // type invariant.
        unsafe {
            bindings::queue_delayed_work_on(ANY_CPU, this.queue.as_ptr(), this.inner.get(), ticks)
        };
    }

    /// It is not queued again. If it waits, or has not begun to run, it is taken out of the queue. Does not wait for
    /// one that runs. The caller has a reference, so what is dropped is not the last one.
    pub(crate) fn shut(owner: &Arc<T>) {
        let this = owner.delayed_work();
        this.state.lock().shut = true;
        // SAFETY: The work is initialised.
        if unsafe { bindings::cancel_delayed_work(this.inner.get()) } {
            this.cancelled(owner);
        }
    }

    /// As [`DelayedWork::shut`], and waits until it does not run. Not to be called by the work itself.
    pub(crate) fn shut_and_wait(owner: &Arc<T>) {
        let this = owner.delayed_work();
        this.state.lock().shut = true;
        // SAFETY: The work is initialised.
        if unsafe { bindings::cancel_delayed_work_sync(this.inner.get()) } {
            this.cancelled(owner);
        }
    }

    /// It was queued, and will not run.
    fn cancelled(&self, owner: &Arc<T>) {
        drop(self.state.lock().waiting.take());
        let raw = Arc::into_raw(owner.clone());
        // SAFETY: This is the clone.
        drop(unsafe { Arc::from_raw(raw) });
        // SAFETY: `enqueue` had given the work a reference, which nobody takes now.
        drop(unsafe { Arc::from_raw(raw) });
    }

    /// # Safety
    ///
    /// Called by the workqueue alone, with the work inside of a `DelayedWork<T, ID>`, once for each time that it was
    /// queued.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        let offset = T::OFFSET + offset_of!(Self, inner) + offset_of!(bindings::delayed_work, work);
        // SAFETY: The work lies in a `DelayedWork`, which lies in a `T`: the trait's safety requirement. The
        // reference is the one that `enqueue` has given to it.
        let owner = unsafe { Arc::from_raw(work.cast::<u8>().sub(offset).cast::<T>()) };
        // From here on it can be queued again.
        drop(owner.delayed_work().state.lock().waiting.take());
        T::run(owner);
    }
}

/// Implements [`HasDelayedWork`] for a type and its field.
macro_rules! impl_has_delayed_work {
    (impl $({$($generics:tt)*})? HasDelayedWork<$id:tt> for $owner:ty { self.$field:ident }) => {
        // SAFETY: Both are of one field.
        unsafe impl $(<$($generics)*>)? $crate::kcompat::delayed_work::HasDelayedWork<$id> for $owner {
            const OFFSET: usize = ::core::mem::offset_of!($owner, $field);

            fn delayed_work(&self) -> &$crate::kcompat::delayed_work::DelayedWork<Self, $id> {
                &self.$field
            }
        }
    };
}
pub(crate) use impl_has_delayed_work;
