// SPDX-License-Identifier: GPL-2.0

//! A cache, as fscache knows it.
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)

use crate::bindings;
use crate::fscache::backend::Backend;
use crate::fscache::backend::Table;
use crate::kcompat::types::into_foreign;
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::ForeignOwnable;

/// The name that a cache is known by, claimed for this backend.
///
/// # Invariants
///
/// The pointer is a `struct fscache_cache` that [`CacheCookie::acquire`] has claimed.
pub(crate) struct CacheCookie<B: Backend> {
    cache: NonNull<bindings::fscache_cache>,
    _backend: PhantomData<B>,
}

// SAFETY: A cache may be used from any thread.
unsafe impl<B: Backend> Send for CacheCookie<B> {}
// SAFETY: As above; what changes in it is atomic.
unsafe impl<B: Backend> Sync for CacheCookie<B> {}

impl<B: Backend> CacheCookie<B> {
    /// Claims the name `tag`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if another cache has it.
    pub(crate) fn acquire(tag: &CStr) -> Result<Self> {
        // SAFETY: `tag` is a string.
        let cache = kernel::error::from_err_ptr(unsafe {
            bindings::fscache_acquire_cache(tag.as_char_ptr())
        })?;
        // INVARIANT: Just claimed.
        let cache = NonNull::new(cache).ok_or(ENOMEM)?;
        Ok(CacheCookie {
            cache,
            _backend: PhantomData,
        })
    }

    /// Opens the cache to netfs's; `private` is what the backend's functions are given.
    ///
    /// # Errors
    ///
    /// Those of `fscache_add_cache`; `private` is dropped.
    pub(crate) fn add(&self, private: Arc<B::Cache>) -> Result {
        let private = into_foreign(private);
        // SAFETY: The cache is claimed and the table static; `private` stays until it is taken
        // out by `relinquish`.
        let ret =
            unsafe { bindings::fscache_add_cache(self.cache.as_ptr(), &Table::<B>::OPS, private) };
        let result = kernel::error::to_result(ret);
        if result.is_err() {
            // SAFETY: fscache has not taken it.
            drop(unsafe { Arc::<B::Cache>::from_foreign(private) });
        }
        result
    }

    /// Closes the cache to new accesses; sleeps until those to the cache itself have ended.
    pub(crate) fn withdraw(&self) -> Withdrawn<'_, B> {
        // SAFETY: The cache is live by the type invariant.
        unsafe { bindings::fscache_withdraw_cache(self.cache.as_ptr()) };
        Withdrawn(self)
    }

    /// Accounts for an object until the result is dropped.
    pub(crate) fn count_object(&self) -> CountedObject {
        // SAFETY: The cache is live by the type invariant.
        unsafe { bindings::fscache_count_object(self.cache.as_ptr()) };
        // INVARIANT: Just counted.
        CountedObject(self.cache)
    }

    fn wait_for_objects(&self) {
        // SAFETY: The cache is live by the type invariant.
        unsafe { bindings::fscache_wait_for_objects(self.cache.as_ptr()) }
    }
}

/// A cache that is closed to new accesses.
pub(crate) struct Withdrawn<'a, B: Backend>(&'a CacheCookie<B>);

impl<B: Backend> Withdrawn<'_, B> {
    /// Sleeps until there are no objects.
    pub(crate) fn wait_for_objects(&self) {
        self.0.wait_for_objects();
    }

    /// Gives back what [`CacheCookie::add`] was given, so that it can be dropped, once there are no
    /// objects. The caller has waited for the accesses to all volumes.
    pub(crate) fn take_private(self) -> Option<Arc<B::Cache>> {
        self.wait_for_objects();
        // SAFETY: Only `acquire_volume` looks at the field, inside an access to a volume; a
        // withdrawn cache grants no new ones.
        let private = unsafe { super::take_pointer(&mut (*self.0.cache.as_ptr()).cache_priv) };
        // SAFETY: Null, or put there by `add`.
        unsafe { Arc::try_from_foreign(private) }
    }
}

impl<B: Backend> Drop for CacheCookie<B> {
    fn drop(&mut self) {
        self.wait_for_objects();
        // SAFETY: The claim is owned by the type invariant, and no object is counted any more.
        unsafe { bindings::fscache_relinquish_cache(self.cache.as_ptr()) }
    }
}

/// An object that its cache accounts for.
///
/// # Invariants
///
/// The object is counted, so that the cache is not relinquished.
pub(crate) struct CountedObject(NonNull<bindings::fscache_cache>);

// SAFETY: The count is atomic.
unsafe impl Send for CountedObject {}
// SAFETY: Nothing is done through a shared reference.
unsafe impl Sync for CountedObject {}

impl Drop for CountedObject {
    fn drop(&mut self) {
        // SAFETY: Counted by the type invariant; the cache may be gone after this.
        unsafe { bindings::fscache_uncount_object(self.0.as_ptr()) }
    }
}
