// SPDX-License-Identifier: GPL-2.0

//! Work items that wait for a time: `DelayedWork`, as newer kernel crates have it.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::marker::PhantomData;
use core::mem::offset_of;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;
use kernel::workqueue::HasWork;
use kernel::workqueue::Queue;
use kernel::workqueue::RawWorkItem;
use kernel::workqueue::Work;
use kernel::workqueue::WorkItem;
use kernel::workqueue::WorkItemPointer;

/// Processor number that leaves the choice to the queue (`WORK_CPU_UNBOUND`).
const ANY_CPU: i32 = bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32;

/// A field of `T` with which `T` is queued for later. While it waits, it owns a reference to `T`.
///
/// # Invariants
///
/// The inner work is initialised and does not move.
#[pin_data]
#[repr(transparent)]
pub(crate) struct DelayedWork<T, const ID: u64> {
    #[pin]
    inner: Opaque<bindings::delayed_work>,
    _owner: PhantomData<fn(T)>,
}

// SAFETY: Delayed work is used from any thread; it has its own locks.
unsafe impl<T, const ID: u64> Send for DelayedWork<T, ID> {}
// SAFETY: As above.
unsafe impl<T, const ID: u64> Sync for DelayedWork<T, ID> {}

/// Declares that a type has a [`DelayedWork`] field. Made by [`impl_has_delayed_work`].
///
/// # Safety
///
/// [`HasWork::raw_get_work`] of the type gives the work inside of a [`DelayedWork<Self, ID>`] that is
/// a field of the type.
pub(crate) unsafe trait HasDelayedWork<const ID: u64>:
    HasWork<Self, ID> + Sized
{
}

/// The delayed work around a work that lies in one.
fn delayed(work: *mut bindings::work_struct) -> *mut bindings::delayed_work {
    work.wrapping_byte_sub(offset_of!(bindings::delayed_work, work))
        .cast()
}

impl<T, const ID: u64> DelayedWork<T, ID>
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<ID>,
    Arc<T>: Send + 'static,
{
    /// Work that is not queued.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot| {
                let run = <Arc<T> as WorkItemPointer<ID>>::run;
                // SAFETY: `slot` is valid for writes, the pin-init protocol says so; `run` is made
                // for the work inside.
                unsafe { bindings::init_delayed_work(slot, Some(run)) }
            }),
            _owner: PhantomData,
        })
    }

    /// Queues `owner` to run after so many ticks (see [`jiffies`](super::time::jiffies), at most
    /// 2^30); does nothing if it waits already. May be called under a spinlock: what it drops is
    /// never the last reference, since the caller has one.
    ///
    /// A queue that is destroyed runs what is queued, but does not know what waits for its time:
    /// [`cancel`](Self::cancel) that before.
    pub(crate) fn enqueue(owner: &Arc<T>, queue: &'static Queue, ticks: u64) {
        let queue: *const Queue = queue;
        // A day fits into 32 bits.
        let ticks = usize::try_from(ticks).unwrap_or(usize::MAX);
        let later = |work: *mut bindings::work_struct| {
            let (queue, work) = (queue.cast_mut().cast(), delayed(work));
            // SAFETY: `Queue` is a `workqueue_struct` in a transparent wrapper; the work lies in a
            // `DelayedWork` by the safety requirement of `HasDelayedWork`, which is initialised by
            // its type invariant.
            unsafe { bindings::queue_delayed_work_on(ANY_CPU, queue, work, ticks) }
        };
        // SAFETY: `later` queues the work, and it stays queued until it runs or is cancelled; it says
        // no only if the work is queued already. What comes back is a reference that was not needed.
        drop(unsafe { RawWorkItem::<ID>::__enqueue(owner.clone(), later) });
    }

    /// Takes it out of the queue, if it waits or has not begun to run, with the reference that it
    /// owned. Does not wait for one that runs.
    pub(crate) fn cancel(owner: &Arc<T>) {
        let this = Arc::into_raw(owner.clone());
        // SAFETY: The pointer is to a valid value, of which `this` is a reference.
        let work = unsafe { T::raw_get_work(this.cast_mut()) };
        // SAFETY: As above.
        let work = unsafe { Work::raw_get(work) };
        // SAFETY: The work lies in a `DelayedWork`, which is initialised.
        let was_queued = unsafe { bindings::cancel_delayed_work(delayed(work)) };
        // SAFETY: `this` is the clone from above.
        drop(unsafe { Arc::from_raw(this) });
        if was_queued {
            // SAFETY: `enqueue` had given the queue a reference, which nobody takes now.
            drop(unsafe { Arc::from_raw(this) });
        }
    }

    /// The work inside, for [`impl_has_delayed_work`].
    ///
    /// # Safety
    ///
    /// The pointer is not dangling.
    pub(crate) unsafe fn raw_work(this: *mut Self) -> *mut Work<T, ID> {
        // SAFETY: Both types are transparent wrappers of C's; the caller promises the rest.
        unsafe { this.byte_add(offset_of!(bindings::delayed_work, work)) }.cast()
    }
}

/// Implements [`HasDelayedWork`] and [`HasWork`] for a type and its field.
macro_rules! impl_has_delayed_work {
    (impl HasDelayedWork<$id:tt> for $owner:ty { self.$field:ident }) => {
        // SAFETY: `raw_get_work` only compiles if the field has the right type, and gives the work
        // inside of that field; so does `OFFSET`.
        unsafe impl ::kernel::workqueue::HasWork<$owner, $id> for $owner {
            const OFFSET: usize = ::core::mem::offset_of!($owner, $field)
                + ::core::mem::offset_of!($crate::bindings::delayed_work, work);

            unsafe fn raw_get_work(ptr: *mut Self) -> *mut ::kernel::workqueue::Work<$owner, $id> {
                // SAFETY: The caller promises that the pointer is valid.
                let field = unsafe { ::core::ptr::addr_of_mut!((*ptr).$field) };
                // SAFETY: As above.
                unsafe { $crate::kcompat::delayed_work::DelayedWork::raw_work(field) }
            }
        }
        // SAFETY: As above.
        unsafe impl $crate::kcompat::delayed_work::HasDelayedWork<$id> for $owner {}
    };
}
pub(crate) use impl_has_delayed_work;
