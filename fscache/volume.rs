// SPDX-License-Identifier: GPL-2.0

//! A volume: the netfs's side of a collection of cookies.
//!
//! C header: [`include/linux/fscache.h`](srctree/include/linux/fscache.h)

use crate::bindings;
use crate::fscache::attachment::Tie;
use crate::fscache::backend::Backend;
use crate::kcompat::types::into_foreign;
use crate::kcompat::types::AlwaysRefCounted;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::ForeignOwnable;
use kernel::types::Opaque;

/// A volume that is attached to a cache.
///
/// # Invariants
///
/// It is live while a reference to it exists.
#[repr(transparent)]
pub(crate) struct VolumeCookie(Opaque<bindings::fscache_volume>);

// SAFETY: A volume may be used from any thread; what changes in it is atomic.
unsafe impl Send for VolumeCookie {}
// SAFETY: As above.
unsafe impl Sync for VolumeCookie {}

// SAFETY: fscache counts references; the reasons show in its tracepoint `fscache_volume`. The only
// references that this module takes are those of a withdrawal.
unsafe impl AlwaysRefCounted for VolumeCookie {
    fn inc_ref(&self) {
        // A reference exists, so that this one cannot fail.
        // SAFETY: The volume is live.
        unsafe { bindings::fscache_get_withdrawn_volume(self.as_ptr()) };
    }

    unsafe fn dec_ref(volume: NonNull<Self>) {
        // SAFETY: The caller gives away a reference that it owns.
        unsafe { bindings::fscache_put_withdrawn_volume(volume.cast().as_ptr()) }
    }
}

impl VolumeCookie {
    /// # Safety
    ///
    /// `volume` is live for `'a`.
    pub(crate) unsafe fn from_raw<'a>(volume: *mut bindings::fscache_volume) -> &'a Self {
        // SAFETY: The type is transparent, the rest is promised by the caller.
        unsafe { &*volume.cast() }
    }

    /// The C structure.
    pub(crate) fn as_ptr(&self) -> *mut bindings::fscache_volume {
        self.0.get()
    }

    /// Its key without the NUL, at most 254 bytes.
    pub(crate) fn key(&self) -> &[u8] {
        // SAFETY: The volume is live; the field does not change.
        let key = unsafe { (*self.as_ptr()).key };
        // SAFETY: The first byte of a volume's key is the length of the rest.
        unsafe { core::slice::from_raw_parts(key.add(1), (*key).into()) }
    }

    /// What the netfs wants compared before stored data is used; at most 255 bytes.
    pub(crate) fn coherency(&self) -> &[u8] {
        // SAFETY: The volume is live; the field does not change.
        let len = unsafe { (*self.as_ptr()).coherency_len };
        // SAFETY: The volume is live.
        let data = unsafe { core::ptr::addr_of!((*self.as_ptr()).coherency) };
        // SAFETY: The data is `len` bytes long, set when the volume is made, and does not change.
        unsafe { core::slice::from_raw_parts(data.cast(), len.into()) }
    }

    /// Its cache.
    pub(super) fn cache(&self) -> *mut bindings::fscache_cache {
        // SAFETY: The volume is live; the field does not change.
        unsafe { (*self.as_ptr()).cache }
    }

    /// Notes what stands behind it.
    ///
    /// # Safety
    ///
    /// fscache attaches the volume, to a cache of `B`: nobody else looks for it yet.
    pub(super) unsafe fn set_private<B: Backend>(&self, private: KBox<Private<B>>) {
        // SAFETY: The caller is alone.
        unsafe { (*self.as_ptr()).cache_priv = into_foreign(private) }
    }

    /// What stands behind it, if anything does.
    ///
    /// # Safety
    ///
    /// It is attached to a cache of `B`, and nobody takes that out during `'a`.
    pub(super) unsafe fn private<'a, B: Backend>(&self) -> Option<&'a Private<B>> {
        // SAFETY: The volume is live; nobody changes the field, as the caller promises.
        let private = unsafe { (*self.as_ptr()).cache_priv };
        // SAFETY: Not null, so put there by `set_private`; the caller keeps it there.
        (!private.is_null()).then(|| unsafe { KBox::<Private<B>>::borrow(private) })
    }

    /// Takes out what stands behind it, if anything does.
    ///
    /// # Safety
    ///
    /// It is attached to a cache of `B`, and nobody else looks at that, or will.
    pub(super) unsafe fn take_private<B: Backend>(&self) -> Option<Arc<B::Volume>> {
        // SAFETY: The caller is alone.
        let private = unsafe { super::take_pointer(&mut (*self.as_ptr()).cache_priv) };
        // SAFETY: Null, or put there by `set_private`.
        let private = unsafe { KBox::<Private<B>>::try_from_foreign(private) }?;
        let Private { tie, volume, attached } = KBox::into_inner(private);
        tie.cut();
        attached.fetch_sub(1, Ordering::Release);
        Some(volume)
    }
}

/// What stands behind a volume.
pub(super) struct Private<B: Backend> {
    pub(super) tie: Arc<Tie>,
    pub(super) volume: Arc<B::Volume>,
    /// How many volumes are attached to the cache, this one included.
    pub(super) attached: Arc<AtomicUsize>,
}
