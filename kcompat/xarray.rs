// SPDX-License-Identifier: GPL-2.0

//! An xarray of boxed values in numbered places, with places that are reserved first.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)
//!
//! Upstream: `kernel::xarray`, since 6.16; it reserves no places, and has no marks, which is what keeps this file.
//!
//! An array is made in two halves. [`Reserver`] hands out places: it may allocate and sleep, any
//! number of threads may hold it, and it never touches a value. [`Values`] is the only way to the
//! values; whoever has `&mut Values` has them to himself, which is what the lock around it is for.
//! The xarray's own lock is taken inside, for each step.

use crate::bindings;
use crate::kcompat::types::into_foreign;
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::ForeignOwnable;
use kernel::types::Opaque;

/// The mark that [`Values::mark`] sets. Mark 0 tells free places in an allocating xarray.
const MARK: u32 = 1;

#[pin_data(PinnedDrop)]
struct Inner {
    #[pin]
    array: Opaque<bindings::xarray>,
    /// Where the search for a free place begins; protected by the xarray's lock.
    next: Opaque<u32>,
}

// SAFETY: An xarray has its own lock, and `Inner` gives no access to values.
unsafe impl Send for Inner {}
// SAFETY: As above.
unsafe impl Sync for Inner {}

#[pinned_drop]
impl PinnedDrop for Inner {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Both halves are gone, and `Values` has taken the values out.
        unsafe { bindings::xa_destroy(self.array.get()) }
    }
}

impl Inner {
    fn ptr(&self) -> *mut bindings::xarray {
        self.array.get()
    }
}

/// A place's number as the xarray takes it: lossless, a long has at least 32 bits.
fn index(id: u32) -> usize {
    id as usize
}

/// Hands out places of an array of `T`.
pub(crate) struct Reserver<T> {
    array: Arc<Inner>,
    _values: PhantomData<fn(T)>,
}

/// A place that is neither free nor filled. Dropping it frees the place.
///
/// # Invariants
///
/// The entry at `id` is reserved in `array`, and this is its only owner.
pub(crate) struct Reservation<T> {
    array: Arc<Inner>,
    id: u32,
    _values: PhantomData<fn(T)>,
}

impl<T> Reservation<T> {
    /// The place's number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}

impl<T> Drop for Reservation<T> {
    fn drop(&mut self) {
        // SAFETY: The array is initialised; the entry is ours by the type invariant.
        unsafe { bindings::xa_erase(self.array.ptr(), index(self.id)) };
    }
}

/// The values of an array.
///
/// # Invariants
///
/// Every entry that is neither empty nor reserved is a `KBox<T>` that this value owns.
pub(crate) struct Values<T: 'static> {
    array: Arc<Inner>,
    _values: PhantomData<KBox<T>>,
}

// SAFETY: `Values` owns boxes of `T` and reaches them through `&mut` alone.
unsafe impl<T: Send> Send for Values<T> {}

/// Makes an empty array. Places are handed out in turn, from 0 to `u32::MAX` and around, so that a
/// number is not used again soon.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn new<T: 'static>() -> Result<(Reserver<T>, Values<T>)> {
    let array = Arc::pin_init(
        pin_init!(Inner {
            array <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, the pin-init protocol says so.
                unsafe { bindings::xa_init_alloc(slot) }
            }),
            next: Opaque::new(0),
        }),
        GFP_KERNEL,
    )?;
    let values = Values {
        array: array.clone(),
        _values: PhantomData,
    };
    let reserver = Reserver {
        array,
        _values: PhantomData,
    };
    Ok((reserver, values))
}

impl<T> Reserver<T> {
    /// Reserves the next free place. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EBUSY` if all 2^32 places are taken.
    pub(crate) fn reserve(&self) -> Result<Reservation<T>> {
        let mut id = 0;
        // SAFETY: The array is initialised; `next` is only used here, under the array's lock.
        let ret = unsafe {
            bindings::xa_reserve_cyclic(self.array.ptr(), &mut id, self.array.next.get())
        };
        kernel::error::to_result(ret)?;
        // INVARIANT: The entry was just reserved for this call alone.
        Ok(Reservation {
            array: self.array.clone(),
            id,
            _values: PhantomData,
        })
    }
}

impl<T: 'static> Values<T> {
    fn find(&self, from: u32, to: u32, filter: u32) -> Option<u32> {
        let mut at = index(from);
        // SAFETY: The array is initialised.
        let found = unsafe { bindings::xa_find(self.array.ptr(), &mut at, index(to), filter) };
        if found.is_null() {
            return None;
        }
        u32::try_from(at).ok()
    }

    /// Puts `value` into the reserved place, unmarked, and tells the place's number.
    pub(crate) fn publish(&mut self, place: Reservation<T>, value: KBox<T>) -> u32 {
        // Another array's place would be nobody's here.
        assert!(Arc::ptr_eq(&place.array, &self.array));
        let id = place.id;
        // SAFETY: The place is one of this array's, as was just checked. A reserved entry is replaced
        // without allocating, so the store cannot fail.
        unsafe { bindings::xa_store(place.array.ptr(), index(id), into_foreign(value), 0) };
        let place = core::mem::ManuallyDrop::new(place);
        // The table's own `array` keeps the xarray; the reservation's reference is not the last.
        // SAFETY: `place` is not used, nor dropped, after this.
        drop(unsafe { core::ptr::read(&place.array) });
        id
    }

    /// The value at `id`, unless the place is free or only reserved.
    pub(crate) fn get(&mut self, id: u32) -> Option<&mut T> {
        // SAFETY: The array is initialised.
        let value = unsafe { bindings::xa_load(self.array.ptr(), index(id)) };
        // SAFETY: By the type invariant the entry is null or a box that `self` owns, and the
        // result borrows `self` mutably.
        NonNull::new(value.cast::<T>()).map(|mut value| unsafe { value.as_mut() })
    }

    /// Takes the value out and frees the place.
    pub(crate) fn take(&mut self, id: u32) -> Option<KBox<T>> {
        self.get(id)?;
        // SAFETY: The array is initialised.
        let value = unsafe { bindings::xa_erase(self.array.ptr(), index(id)) };
        // SAFETY: By the type invariant the entry was a box that `self` owned; it is out now.
        unsafe { KBox::try_from_foreign(value) }
    }

    /// Sets (`true`) or clears the mark of a published value.
    pub(crate) fn mark(&mut self, id: u32, on: bool) {
        if on {
            // SAFETY: The array is initialised.
            unsafe { bindings::xa_set_mark(self.array.ptr(), index(id), MARK) }
        } else {
            // SAFETY: The array is initialised.
            unsafe { bindings::xa_clear_mark(self.array.ptr(), index(id), MARK) }
        }
    }

    /// The lowest marked place in `from..=to`.
    pub(crate) fn first_marked(&self, from: u32, to: u32) -> Option<u32> {
        self.find(from, to, MARK)
    }

    /// Whether any place is marked.
    pub(crate) fn any_marked(&self) -> bool {
        // SAFETY: The array is initialised.
        unsafe { bindings::xa_marked(self.array.ptr(), MARK) }
    }

    /// The lowest published place at or above `from`.
    pub(crate) fn first(&self, from: u32) -> Option<u32> {
        self.find(from, u32::MAX, bindings::XA_PRESENT)
    }
}

impl<T: 'static> Drop for Values<T> {
    fn drop(&mut self) {
        while let Some(id) = self.first(0) {
            drop(self.take(id));
        }
    }
}
