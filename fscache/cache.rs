// SPDX-License-Identifier: GPL-2.0

//! A cache, as fscache knows it.
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)

use crate::bindings;
use crate::fscache::attachment::WithdrawnCache;
use crate::fscache::backend::Backend;
use crate::fscache::backend::HasTable;
use crate::kcompat::types::into_foreign;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
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
    stage: AtomicU8,
    /// How many volumes are attached to it.
    attached: Arc<AtomicUsize>,
    _backend: PhantomData<fn() -> B>,
}

/// How far a cache has come; it goes through them in this order, each once.
mod stage {
    /// Its name is claimed.
    pub(super) const CLAIMED: u8 = 0;
    /// It is being opened to netfs's.
    pub(super) const ADDING: u8 = 1;
    /// It is open to them.
    pub(super) const IN_SERVICE: u8 = 2;
    /// It is closed to new accesses.
    pub(super) const WITHDRAWN: u8 = 3;
    /// The backend's functions are not called any more, but for volumes that are attached still.
    pub(super) const ENDED: u8 = 4;
}

/// What stands behind a cache.
pub(super) struct Private<B: Backend> {
    pub(super) cache: Arc<B::Cache>,
    pub(super) attached: Arc<AtomicUsize>,
}

/// What stands behind a cache, if anything does.
///
/// # Safety
///
/// `cache` is a cache of `B`, and fscache holds an access to it during `'a`.
pub(super) unsafe fn private<'a, B: Backend>(
    cache: *mut bindings::fscache_cache,
) -> Option<&'a Private<B>> {
    // SAFETY: The cache is live.
    let private = unsafe { (*cache).cache_priv };
    // SAFETY: Not null, so put there by `add`. It is taken out when the cache is withdrawn, which waits for the access.
    (!private.is_null()).then(|| unsafe { KBox::<Private<B>>::borrow(private) })
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
        let attached = Arc::new(AtomicUsize::new(0), GFP_KERNEL).inspect_err(|_| {
            // SAFETY: Just claimed, and not given away.
            unsafe { bindings::fscache_relinquish_cache(cache.as_ptr()) }
        })?;
        Ok(CacheCookie {
            cache,
            stage: AtomicU8::new(stage::CLAIMED),
            attached,
            _backend: PhantomData,
        })
    }

    /// Opens the cache to netfs's; `cache` is what the backend's functions are given.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it was opened before; `ENOMEM`; those of `fscache_add_cache`. `cache` is dropped.
    pub(crate) fn add(&self, cache: Arc<B::Cache>) -> Result
    where
        B: HasTable,
    {
        let attached = self.attached.clone();
        let private = KBox::new(Private::<B> { cache, attached }, GFP_KERNEL)?;
        self.pass(stage::CLAIMED, stage::ADDING).ok_or(EBUSY)?;
        let private = into_foreign(private);
        // SAFETY: The cache is claimed and the table static; `private` stays until it is taken
        // out by `relinquish`.
        let ret = unsafe { bindings::fscache_add_cache(self.cache.as_ptr(), &B::TABLE, private) };
        let result = kernel::error::to_result(ret);
        if result.is_err() {
            // SAFETY: fscache has not taken it.
            drop(unsafe { KBox::<Private<B>>::from_foreign(private) });
        }
        let now = if result.is_ok() {
            stage::IN_SERVICE
        } else {
            stage::CLAIMED
        };
        self.stage.store(now, Ordering::Release);
        result
    }

    /// Goes on from one stage to another one; `None` if it was in a third one.
    fn pass(&self, from: u8, to: u8) -> Option<()> {
        let passed = self
            .stage
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        passed.ok().map(drop)
    }

    /// Closes the cache to new accesses; sleeps until those to the cache itself have ended. `None` if it is not in service.
    pub(crate) fn withdraw(&self) -> Option<Withdrawn<'_, B>> {
        self.pass(stage::IN_SERVICE, stage::WITHDRAWN)?;
        // SAFETY: The cache is live by the type invariant, and in service: fscache has counted an access for that.
        unsafe { bindings::fscache_withdraw_cache(self.cache.as_ptr()) };
        // SAFETY: It is, and the cookie keeps it so.
        let proof = unsafe { WithdrawnCache::new(self.cache) };
        Some(Withdrawn {
            cookie: self,
            proof,
        })
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

/// A cache that is closed to new accesses. There is one such value for a cache.
pub(crate) struct Withdrawn<'a, B: Backend> {
    cookie: &'a CacheCookie<B>,
    proof: WithdrawnCache<'a>,
}

impl<'a, B: Backend> Withdrawn<'a, B> {
    /// What the withdrawal of its volumes asks for.
    pub(crate) fn proof(&self) -> &WithdrawnCache<'a> {
        &self.proof
    }

    /// Sleeps until there are no objects.
    pub(crate) fn wait_for_objects(&self) {
        self.cookie.wait_for_objects();
    }

    /// Gives back what [`CacheCookie::add`] was given, so that it can be dropped, once there are no objects. All volumes are
    /// detached by then, or the cache is never given up.
    pub(crate) fn take_private(self) -> Option<Arc<B::Cache>> {
        self.wait_for_objects();
        // SAFETY: Only `acquire_volume` looks at the field, inside of an access to the cache; there is none, and a withdrawn
        // cache grants no new ones.
        let private = unsafe { super::take_pointer(&mut (*self.cookie.cache.as_ptr()).cache_priv) };
        // SAFETY: Null, or put there by `add`.
        let private = unsafe { KBox::<Private<B>>::try_from_foreign(private) }?;
        self.cookie.pass(stage::WITHDRAWN, stage::ENDED);
        Some(KBox::into_inner(private).cache)
    }
}

impl<B: Backend> Drop for CacheCookie<B> {
    fn drop(&mut self) {
        self.wait_for_objects();
        let stage = self.stage.load(Ordering::Acquire);
        let attached = self.attached.load(Ordering::Acquire);
        if stage != stage::CLAIMED && (stage != stage::ENDED || attached > 0) {
            // fscache would call the backend still, or a function that is not there.
            pr_err!("a cache was dropped in service: it and the module stay\n");
            // SAFETY: The module is live, since this is its code.
            unsafe { bindings::__module_get(crate::THIS_MODULE.as_ptr()) };
            return;
        }
        // SAFETY: The claim is owned by the type invariant, and no object is counted any more. The backend's functions are not
        // called any more.
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
