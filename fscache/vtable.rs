// SPDX-License-Identifier: GPL-2.0

//! The functions that fscache calls, of any backend.
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)
//! (`struct fscache_cache_ops`)

use crate::bindings;
use crate::fscache::attachment;
use crate::fscache::backend::object;
use crate::fscache::backend::Backend;
use crate::fscache::backend::HasTable;
use crate::fscache::cache;
use crate::fscache::cookie::Cookie;
use crate::fscache::resources::CacheResources;
use crate::fscache::volume::VolumeCookie;
use crate::kcompat::types::into_foreign;
use core::marker::PhantomData;
use kernel::sync::Arc;
use kernel::types::ForeignOwnable;

impl<B: Backend> HasTable for B {
    const TABLE: bindings::fscache_cache_ops = bindings::fscache_cache_ops {
        name: c"cachefiles".as_ptr().cast(),
        acquire_volume: Some(Table::<B>::acquire_volume),
        free_volume: Some(Table::<B>::free_volume),
        lookup_cookie: Some(Table::<B>::lookup_cookie),
        withdraw_cookie: Some(Table::<B>::withdraw_cookie),
        resize_cookie: Some(Table::<B>::resize_cookie),
        invalidate_cookie: Some(Table::<B>::invalidate_cookie),
        begin_operation: Some(Table::<B>::begin_operation),
        prepare_to_write: Some(Table::<B>::prepare_to_write),
    };
}

struct Table<B>(PhantomData<B>);

impl<B: Backend> Table<B> {
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
        // Nothing is cached of a volume that nothing stands behind.
        // SAFETY: fscache attaches it, to a cache of ours, inside of that access.
        let _ = unsafe {
            attachment::attach(volume, &cache.attached, |attachment| {
                B::acquire_volume(cache.cache.as_arc_borrow(), volume, attachment)
            })
        };
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn free_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: fscache keeps the volume's memory during the call.
        let volume = unsafe { VolumeCookie::from_raw(volume) };
        // SAFETY: It is attached to a cache of ours. Its last reference is gone, and with it all cookies, so that there is
        // no lookup, and a withdrawal, which needs one, does not take it out.
        drop(unsafe { attachment::detach::<B::Volume>(volume) });
    }

    /// # Safety
    ///
    /// Called by fscache alone, through the table.
    unsafe extern "C" fn lookup_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: fscache holds the cookie, and an access to its volume, during the call.
        let cookie = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: The volume is attached to a cache of ours, and the access keeps what stands behind it.
        let Some(volume) = (unsafe { attachment::behind::<B::Volume>(cookie.volume()) }) else {
            cookie.caching_failed();
            return false;
        };
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
