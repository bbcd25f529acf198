// SPDX-License-Identifier: GPL-2.0

//! A cookie: the netfs's side of one cached object.
//!
//! C header: [`include/linux/fscache.h`](srctree/include/linux/fscache.h)

use crate::bindings;
use crate::fscache::volume::VolumeCookie;
use crate::kcompat::types::AlwaysRefCounted;
use core::ptr::NonNull;
use kernel::types::Opaque;

/// A flag of a cookie, by its bit number.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Flag {
    /// Its data is to be deleted when it is given up.
    Retired = bindings::FSCACHE_COOKIE_RETIRED,
    /// There is no data to read yet.
    NoDataToRead = bindings::FSCACHE_COOKIE_NO_DATA_TO_READ,
    /// Its attributes on disk are out of date.
    NeedsUpdate = bindings::FSCACHE_COOKIE_NEEDS_UPDATE,
    /// The netfs has changed it locally.
    LocalWrite = bindings::FSCACHE_COOKIE_LOCAL_WRITE,
    /// Data was stored.
    HaveData = bindings::FSCACHE_COOKIE_HAVE_DATA,
}

/// A cookie.
///
/// # Invariants
///
/// Its reference count is above zero while a reference to it exists, and its volume is attached to
/// a cache.
#[repr(transparent)]
pub(crate) struct Cookie(Opaque<bindings::fscache_cookie>);

// SAFETY: A cookie may be used from any thread; what changes in it is atomic or has one writer.
unsafe impl Send for Cookie {}
// SAFETY: As above.
unsafe impl Sync for Cookie {}

// SAFETY: fscache counts references. The reasons show in its tracepoint `fscache_cookie`.
unsafe impl AlwaysRefCounted for Cookie {
    fn inc_ref(&self) {
        // SAFETY: The existence of `self` shows that the count is above zero.
        unsafe { bindings::fscache_get_object_cookie(self.as_ptr()) };
    }

    unsafe fn dec_ref(cookie: NonNull<Self>) {
        // SAFETY: The caller gives away a reference that it owns.
        unsafe { bindings::fscache_put_object_cookie(cookie.cast().as_ptr()) }
    }
}

impl Cookie {
    /// # Safety
    ///
    /// `cookie` is live for `'a`, and its volume is attached to a cache.
    pub(crate) unsafe fn from_raw<'a>(cookie: *mut bindings::fscache_cookie) -> &'a Self {
        // SAFETY: The type is transparent, the rest is promised by the caller.
        unsafe { &*cookie.cast() }
    }

    /// The C structure.
    pub(crate) fn as_ptr(&self) -> *mut bindings::fscache_cookie {
        self.0.get()
    }

    /// Its key: any bytes, at most 255.
    pub(crate) fn key(&self) -> &[u8] {
        // SAFETY: The cookie is live; the field does not change.
        let len = unsafe { (*self.as_ptr()).key_len };
        // SAFETY: The cookie is live, and has its key since it was made.
        let key = unsafe { bindings::fscache_get_key(self.as_ptr()) };
        // SAFETY: The key is `len` bytes long, and does not change.
        unsafe { core::slice::from_raw_parts(key.cast(), len.into()) }
    }

    /// The hash over volume key and key.
    pub(crate) fn key_hash(&self) -> u32 {
        // SAFETY: The cookie is live; the field does not change.
        unsafe { (*self.as_ptr()).key_hash }
    }

    /// Whether the netfs wants auxiliary data compared before stored data is used.
    pub(crate) fn has_aux(&self) -> bool {
        // SAFETY: The cookie is live; the field does not change.
        let len = unsafe { (*self.as_ptr()).aux_len };
        len != 0
    }

    /// Whether the netfs leaves it to the cache to find out the size.
    pub(crate) fn wants_cache_size(&self) -> bool {
        // SAFETY: The cookie is live; the field does not change.
        let advice = unsafe { (*self.as_ptr()).advice };
        u32::from(advice) & bindings::FSCACHE_ADV_WANT_CACHE_SIZE != 0
    }

    /// The size of the object in bytes.
    pub(crate) fn object_size(&self) -> u64 {
        // SAFETY: The cookie is live; the size is one machine word that is read as it is.
        let size = unsafe { core::ptr::addr_of!((*self.as_ptr()).object_size).read_volatile() };
        u64::try_from(size).unwrap_or(0)
    }

    /// Changes the size of the object. One caller at a time, which the object's lock sees to.
    pub(crate) fn set_object_size(&self, size: i64) {
        // SAFETY: As in `object_size`.
        unsafe { core::ptr::addr_of_mut!((*self.as_ptr()).object_size).write_volatile(size) }
    }

    /// How often it was invalidated.
    pub(crate) fn inval_counter(&self) -> u32 {
        // SAFETY: The cookie is live; a number that is read as it is.
        unsafe { core::ptr::addr_of!((*self.as_ptr()).inval_counter).read_volatile() }
    }

    /// Its volume.
    pub(crate) fn volume(&self) -> &VolumeCookie {
        // SAFETY: The cookie is live; the field does not change.
        let volume = unsafe { (*self.as_ptr()).volume };
        // SAFETY: A cookie holds its volume, which is attached to a cache by the type invariant.
        unsafe { VolumeCookie::from_raw(volume) }
    }

    /// Sets or clears a flag.
    pub(crate) fn set_flag(&self, flag: Flag, on: bool) {
        if on {
            // SAFETY: The cookie is live; the bit is set atomically.
            unsafe { bindings::cookie_set_flag(self.as_ptr(), flag as u32) }
        } else {
            // SAFETY: The cookie is live; the bit is cleared atomically.
            unsafe { bindings::cookie_clear_flag(self.as_ptr(), flag as u32) }
        }
    }

    /// Clears a flag and tells whether it was set.
    pub(crate) fn take_flag(&self, flag: Flag) -> bool {
        // SAFETY: The cookie is live; the bit is changed atomically.
        unsafe { bindings::cookie_test_and_clear_flag(self.as_ptr(), flag as u32) }
    }

    /// Tells fscache that the lookup failed: nothing is cached under this cookie until it is used
    /// anew. Only inside `lookup_cookie`.
    pub(crate) fn caching_failed(&self) {
        // SAFETY: The cookie is live and being looked up.
        unsafe { bindings::fscache_caching_failed(self.as_ptr()) }
    }

    /// Lets I/O go on after an invalidation. Only inside `invalidate_cookie`.
    pub(crate) fn resume_after_invalidation(&self) {
        // SAFETY: The cookie is live and being invalidated.
        unsafe { bindings::fscache_resume_after_invalidation(self.as_ptr()) }
    }

    /// Has fscache call `withdraw_cookie` as soon as no access is under way. Does not sleep.
    pub(crate) fn withdraw(&self) {
        // SAFETY: The cookie is live.
        unsafe { bindings::fscache_withdraw_cookie(self.as_ptr()) }
    }
}
