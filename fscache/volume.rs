// SPDX-License-Identifier: GPL-2.0

//! A volume: the netfs's side of a collection of cookies.
//!
//! C header: [`include/linux/fscache.h`](srctree/include/linux/fscache.h)

use crate::bindings;
use crate::kcompat::types::into_foreign;
use crate::kcompat::types::ARef;
use crate::kcompat::types::AlwaysRefCounted;
use core::ptr::NonNull;
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

    fn raw(&self) -> &bindings::fscache_volume {
        // SAFETY: The volume is live; callers read fields that do not change.
        unsafe { &*self.as_ptr() }
    }

    /// Its key without the NUL, at most 254 bytes.
    pub(crate) fn key(&self) -> &[u8] {
        let key = self.raw().key;
        // SAFETY: The first byte of a volume's key is the length of the rest.
        unsafe { core::slice::from_raw_parts(key.add(1), (*key).into()) }
    }

    /// What the netfs wants compared before stored data is used; at most 255 bytes.
    pub(crate) fn coherency(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: The data is `coherency_len` bytes long and set when the volume is made.
        unsafe { core::slice::from_raw_parts(raw.coherency.as_ptr(), raw.coherency_len.into()) }
    }

    /// Keeps the count of accesses above zero until [`VolumeCookie::withdraw`].
    pub(crate) fn pin(&self) {
        // SAFETY: The volume is live.
        unsafe { bindings::fscache_pin_volume(self.as_ptr()) }
    }

    /// Withdraws the volume: sleeps until no access is under way.
    pub(crate) fn withdraw(&self) {
        // SAFETY: The volume is live, and pinned once.
        unsafe { bindings::fscache_withdraw_volume(self.as_ptr()) }
    }

    pub(super) fn set_private<T: ForeignOwnable>(&self, private: T) {
        // SAFETY: Called by the one who attaches the volume, before anybody looks for it.
        unsafe { (*self.as_ptr()).cache_priv = into_foreign(private) }
    }

    pub(super) fn private(&self) -> *mut kernel::ffi::c_void {
        self.raw().cache_priv
    }

    /// Takes out what `acquire_volume` returned.
    ///
    /// # Safety
    ///
    /// `T` is its type, the caller is the only one who may take it, and no cookie of the volume is
    /// in use any more.
    pub(super) unsafe fn take_private<T: ForeignOwnable>(&self) -> Option<T> {
        // SAFETY: The caller is alone.
        let private = unsafe { super::take_pointer(&mut (*self.as_ptr()).cache_priv) };
        // SAFETY: Null, or put there by `set_private`.
        unsafe { T::try_from_foreign(private) }
    }
}

/// A volume that may be on its way out: it is remembered without a reference.
///
/// # Invariants
///
/// The volume is not freed before the owner of this value has let go of it.
pub(crate) struct WeakVolume(NonNull<bindings::fscache_volume>);

// SAFETY: A volume may be used from any thread.
unsafe impl Send for WeakVolume {}
// SAFETY: As above.
unsafe impl Sync for WeakVolume {}

impl WeakVolume {
    pub(super) fn new(volume: &VolumeCookie) -> Self {
        // INVARIANT: fscache calls `free_volume` before it frees the volume, and the cache lets go
        // of this value there.
        WeakVolume(NonNull::from(volume).cast())
    }

    /// Whether it is this one.
    pub(super) fn is(&self, volume: &VolumeCookie) -> bool {
        self.0.as_ptr() == volume.as_ptr()
    }

    /// The volume with a reference, unless its last one is gone.
    pub(crate) fn upgrade(&self) -> Option<ARef<VolumeCookie>> {
        // SAFETY: The memory is live by the type invariant.
        let volume = unsafe { bindings::fscache_get_withdrawn_volume(self.0.as_ptr()) };
        // SAFETY: Not null means that a reference was taken.
        NonNull::new(volume.cast()).map(|volume| unsafe { ARef::from_raw(volume) })
    }
}
