// SPDX-License-Identifier: GPL-2.0

//! A volume: the netfs's side of a collection of cookies.
//!
//! C header: [`include/linux/fscache.h`](srctree/include/linux/fscache.h)

use crate::bindings;
use crate::kcompat::types::AlwaysRefCounted;
use core::ptr::NonNull;
use kernel::ffi::c_void;
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

    /// The pointer to what stands behind it; null before it is attached and once it is detached.
    pub(super) fn cache_priv(&self) -> *mut c_void {
        // SAFETY: The volume is live; the field is one machine word that is read as it is.
        unsafe { core::ptr::addr_of!((*self.as_ptr()).cache_priv).read_volatile() }
    }

    /// Replaces that pointer.
    ///
    /// # Safety
    ///
    /// Nobody uses what the old one points to, and the new one is null or what fscache's functions of this backend expect.
    pub(super) unsafe fn replace_cache_priv(&self, new: *mut c_void) -> *mut c_void {
        // SAFETY: The volume is live, and nobody else changes the field, as the caller promises.
        unsafe { core::ptr::addr_of_mut!((*self.as_ptr()).cache_priv).replace(new) }
    }
}
