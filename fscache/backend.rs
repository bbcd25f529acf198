// SPDX-License-Identifier: GPL-2.0

//! What fscache asks of a cache.
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)
//! (`struct fscache_cache_ops`)

use crate::bindings;
use crate::fscache::attachment::Attachment;
use crate::fscache::attachment::Tie;
use crate::fscache::cache;
use crate::fscache::cookie::Cookie;
use crate::fscache::netfs::Operations;
use crate::fscache::resources::CacheResources;
use crate::fscache::volume;
use crate::fscache::volume::VolumeCookie;
use crate::kcompat::types::into_foreign;
use core::marker::PhantomData;
use core::sync::atomic::Ordering;
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

    /// Prepares the store for a volume. `attachment` is for the cache's withdrawal. The result is dropped when fscache
    /// frees the volume, or is given back by the withdrawal.
    ///
    /// # Errors
    ///
    /// Nothing of the volume is cached then.
    fn acquire_volume(
        cache: ArcBorrow<'_, Self::Cache>,
        volume: &VolumeCookie,
        attachment: Attachment<Self>,
    ) -> Result<Arc<Self::Volume>>;

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
        // SAFETY: The volume is attached to a cache of ours, and fscache holds an access to that.
        let Some(cache) = (unsafe { cache::private::<B>(volume.cache()) }) else {
            return;
        };
        // A volume without what stands behind it is one that nothing is cached of.
        let _ = Self::attach(cache, volume);
    }

    fn attach(cache: &cache::Private<B>, volume: &VolumeCookie) -> Result {
        let tie = Tie::new(volume)?;
        let memory = KBox::<volume::Private<B>>::new_uninit(GFP_KERNEL)?;
        let attachment = Attachment::new(tie.clone());
        let private = B::acquire_volume(cache.cache.as_arc_borrow(), volume, attachment)
            .inspect_err(|_| tie.cut())?;
        // No withdrawal looks at the volume before fscache has ended its access to the cache.
        tie.pin(volume);
        let attached = cache.attached.clone();
        attached.fetch_add(1, Ordering::Relaxed);
        let private = KBox::write(
            memory,
            volume::Private {
                tie,
                volume: private,
                attached,
            },
        );
        // SAFETY: fscache is attaching it, to a cache of ours.
        unsafe { volume.set_private::<B>(private) };
        Ok(())
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn free_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: fscache keeps the volume's memory during the call.
        let volume = unsafe { VolumeCookie::from_raw(volume) };
        // SAFETY: It is attached to a cache of ours. Its last reference is gone, and with it all cookies, so that there is
        // no lookup, and a withdrawal, which needs one, does not take it out.
        drop(unsafe { volume.take_private::<B>() });
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn lookup_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: fscache holds the cookie, and an access to its volume, during the call.
        let cookie = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: The volume is attached to a cache of ours, and the access keeps what stands behind it.
        let Some(volume) = (unsafe { cookie.volume().private::<B>() }) else {
            cookie.caching_failed();
            return false;
        };
        match B::lookup_cookie(volume.volume.as_arc_borrow(), cookie) {
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
