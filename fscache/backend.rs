// SPDX-License-Identifier: GPL-2.0

//! What fscache asks of a cache.
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)
//! (`struct fscache_cache_ops`)

use crate::bindings;
use crate::fscache::cookie::Cookie;
use crate::fscache::netfs::Operations;
use crate::fscache::resources::CacheResources;
use crate::fscache::volume::VolumeCookie;
use crate::fscache::volume::WeakVolume;
use crate::kcompat::types::into_foreign;
use core::marker::PhantomData;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::ArcBorrow;
use kernel::types::ForeignOwnable;

/// A cache backend. fscache calls it on its own workqueue and on the system's, except for `begin_operation`, which
/// runs in the reader, and `free_volume`, which runs in whoever drops the last reference, a task that unmounts as a
/// rule; nothing may wait there for a daemon. When the module goes, some may still be on their way out:
/// [`wait_for_callers`](super::wait_for_callers).
pub(crate) trait Backend: Sized + 'static {
    /// What stands behind a cache.
    type Cache: Send + Sync + 'static;
    /// What stands behind a volume.
    type Volume: Send + Sync + 'static;
    /// What stands behind a cookie.
    type Object: Send + Sync + 'static;
    /// What reads from its cookies do.
    type Operations: Operations<Backend = Self>;

    /// Prepares the store for a volume. On success the backend keeps `attachment` until
    /// [`Backend::free_volume`] or its own withdrawal, whichever comes first.
    ///
    /// # Errors
    ///
    /// Nothing of the volume is cached then.
    fn acquire_volume(
        cache: ArcBorrow<'_, Self::Cache>,
        volume: &VolumeCookie,
        attachment: Attachment<Self>,
    ) -> Result<Arc<Self::Volume>>;

    /// The volume is going: give its attachment back, unless a withdrawal has taken it already.
    fn free_volume(volume: ArcBorrow<'_, Self::Volume>) -> Option<Attachment<Self>>;

    /// Takes in the object of a cookie.
    ///
    /// # Errors
    ///
    /// Nothing is cached under the cookie then, until its netfs uses it anew. EROFS does so at a mount
    /// only, and uses freed memory for compressed reads meanwhile (D47): a backend for it succeeds, and
    /// fails its reads.
    fn lookup_cookie(
        volume: ArcBorrow<'_, Self::Volume>,
        cookie: &Cookie,
    ) -> Result<Arc<Self::Object>>;

    /// Finishes with an object; no access to it is under way.
    fn withdraw_cookie(object: Arc<Self::Object>, cookie: &Cookie);

    /// Discards an object's data.
    ///
    /// # Errors
    ///
    /// The object could not be emptied.
    fn invalidate_cookie(object: ArcBorrow<'_, Self::Object>, cookie: &Cookie) -> Result;

    /// An operation on the object begins, whose reads `Operations` carries out.
    fn begin_operation(object: ArcBorrow<'_, Self::Object>, resources: &mut CacheResources);

    /// The netfs has changed the object's size.
    fn resize_cookie(object: ArcBorrow<'_, Self::Object>, cookie: &Cookie, size: i64);

    /// The netfs is about to change the object.
    fn prepare_to_write(object: ArcBorrow<'_, Self::Object>, cookie: &Cookie);
}

/// The right to detach a volume from its backend: whoever has it may take out what
/// `acquire_volume` returned. There is one for each attached volume.
pub(crate) struct Attachment<B> {
    volume: WeakVolume,
    _backend: PhantomData<B>,
}

impl<B: Backend> Attachment<B> {
    /// The volume, unless fscache is freeing it.
    pub(crate) fn volume(&self) -> &WeakVolume {
        &self.volume
    }

    /// Detaches `volume`, which must be the one of this attachment, and gives back its private
    /// data.
    pub(crate) fn detach(self, volume: &VolumeCookie) -> Option<Arc<B::Volume>> {
        if !self.volume.is(volume) {
            return None;
        }
        // SAFETY: The attachment is the only right to it and is used up. Both of its users hold
        // it when no cookie of the volume is in use: fscache frees a volume only then, and a
        // withdrawal waits for it.
        unsafe { volume.take_private() }
    }
}

/// The C side's table of functions.
pub(super) struct Table<B>(PhantomData<B>);

impl<B: Backend> Table<B> {
    pub(super) const OPS: bindings::fscache_cache_ops = bindings::fscache_cache_ops {
        name: c"cachefiles".as_ptr().cast(),
        acquire_volume: Some(Self::acquire_volume),
        free_volume: Some(Self::free_volume),
        lookup_cookie: Some(Self::lookup_cookie),
        withdraw_cookie: Some(Self::withdraw_cookie),
        resize_cookie: Some(Self::resize_cookie),
        invalidate_cookie: Some(Self::invalidate_cookie),
        begin_operation: Some(Self::begin_operation),
        prepare_to_write: Some(Self::prepare_to_write),
    };

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn acquire_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: fscache holds the volume during the call.
        let volume = unsafe { VolumeCookie::from_raw(volume) };
        // SAFETY: The volume is attached to a cache of ours, whose `cache_priv` was set by `add`
        // and stays until the volumes are gone.
        let cache = unsafe {
            let cache = (*volume.as_ptr()).cache;
            <Arc<B::Cache> as ForeignOwnable>::borrow((*cache).cache_priv)
        };
        let attachment = Attachment {
            volume: WeakVolume::new(volume),
            _backend: PhantomData,
        };
        if let Ok(private) = B::acquire_volume(cache, volume, attachment) {
            volume.set_private(private);
        }
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn free_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: fscache keeps the volume's memory during the call.
        let volume = unsafe { VolumeCookie::from_raw(volume) };
        let private = volume.private();
        if private.is_null() {
            return;
        }
        // SAFETY: Set by `acquire_volume`. The volume's last reference is gone, so that a
        // withdrawal, which needs one, cannot take the data out meanwhile.
        let attachment =
            B::free_volume(unsafe { <Arc<B::Volume> as ForeignOwnable>::borrow(private) });
        if let Some(attachment) = attachment {
            drop(attachment.detach(volume));
        }
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn lookup_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: fscache holds the cookie, and an access to its volume, during the call.
        let cookie = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: A lookup follows a successful `acquire_volume`, and the access keeps the data.
        let volume =
            unsafe { <Arc<B::Volume> as ForeignOwnable>::borrow(cookie.volume().private()) };
        match B::lookup_cookie(volume, cookie) {
            Ok(object) => {
                // SAFETY: Nobody looks at the field before this function has returned.
                unsafe { (*cookie.as_ptr()).cache_priv = into_foreign(object) };
                true
            }
            Err(_) => {
                cookie.caching_failed();
                false
            }
        }
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn withdraw_cookie(cookie: *mut bindings::fscache_cookie) {
        // SAFETY: fscache holds the cookie during the call.
        let cookie = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: No access is under way, so that nobody else looks at the field.
        let private = unsafe { super::take_pointer(&mut (*cookie.as_ptr()).cache_priv) };
        // SAFETY: Null, or set by `lookup_cookie`.
        if let Some(object) = unsafe { Arc::try_from_foreign(private) } {
            B::withdraw_cookie(object, cookie);
        }
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn invalidate_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: fscache holds the cookie during the call.
        let cookie = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: The cookie's state machine calls this, and it is not in `withdraw_cookie`.
        match unsafe { object::<B>(cookie) } {
            Some(object) => B::invalidate_cookie(object, cookie).is_ok(),
            None => false,
        }
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn begin_operation(
        resources: *mut bindings::netfs_cache_resources,
        _want: bindings::fscache_want_state,
    ) -> bool {
        // SAFETY: The caller's resources are ours during the call, and belong to a cookie that
        // fscache has begun an access to.
        let resources = unsafe { CacheResources::from_raw(resources) };
        // SAFETY: That access keeps `withdraw_cookie` from being called.
        match unsafe { object::<B>(resources.cookie()) } {
            Some(object) => {
                resources.set_operations::<B>();
                B::begin_operation(object, resources);
                true
            }
            None => false,
        }
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn resize_cookie(
        resources: *mut bindings::netfs_cache_resources,
        size: bindings::loff_t,
    ) {
        // SAFETY: As in `begin_operation`.
        let resources = unsafe { CacheResources::from_raw(resources) };
        let cookie = resources.cookie();
        // SAFETY: As in `begin_operation`.
        if let Some(object) = unsafe { object::<B>(cookie) } {
            B::resize_cookie(object, cookie, size);
        }
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn prepare_to_write(cookie: *mut bindings::fscache_cookie) {
        // SAFETY: fscache holds the cookie during the call.
        let cookie = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: As in `invalidate_cookie`.
        if let Some(object) = unsafe { object::<B>(cookie) } {
            B::prepare_to_write(object, cookie);
        }
    }
}

/// The object behind a cookie.
///
/// # Safety
///
/// `withdraw_cookie` does not run for the cookie during `'a`.
pub(super) unsafe fn object<B: Backend>(cookie: &Cookie) -> Option<ArcBorrow<'_, B::Object>> {
    // SAFETY: The cookie is live.
    let private = unsafe { (*cookie.as_ptr()).cache_priv };
    if private.is_null() {
        return None;
    }
    // SAFETY: Set by `lookup_cookie`; the caller keeps it there.
    Some(unsafe { <Arc<B::Object> as ForeignOwnable>::borrow(private) })
}
