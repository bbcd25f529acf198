// SPDX-License-Identifier: GPL-2.0

//! What an operation of a netfs on the cache has in hand.
//!
//! C header: [`include/linux/netfs.h`](srctree/include/linux/netfs.h) (`struct netfs_cache_resources`)

use crate::bindings;
use crate::fscache::cookie::Cookie;
use crate::kcompat::fs::File;
use crate::kcompat::types::ARef;
use core::ptr::NonNull;
use kernel::types::Opaque;

/// What a reader of the cache has in hand between the beginning and the end of an operation.
///
/// # Invariants
///
/// The operation has begun: fscache holds an access to the cookie, so that its object is not
/// withdrawn. `cache_priv2` is null or a file with a reference.
#[repr(transparent)]
pub(crate) struct CacheResources(Opaque<bindings::netfs_cache_resources>);

impl CacheResources {
    /// # Safety
    ///
    /// `resources` belongs to an operation that has begun and is used by nobody else during `'a`.
    pub(super) unsafe fn from_raw<'a>(
        resources: *mut bindings::netfs_cache_resources,
    ) -> &'a mut Self {
        // SAFETY: The type is transparent, the rest is promised by the caller.
        unsafe { &mut *resources.cast() }
    }

    fn raw(&self) -> &bindings::netfs_cache_resources {
        // SAFETY: Nobody changes it while it is borrowed.
        unsafe { &*self.0.get() }
    }

    /// The cookie that is read. The callers, all in this folder, use it only during the call that
    /// they were given the resources for.
    pub(super) fn cookie<'a>(&self) -> &'a Cookie {
        // SAFETY: The operation's access keeps the cookie during that call.
        unsafe { Cookie::from_raw(self.raw().cache_priv.cast()) }
    }

    /// How often the object had been invalidated when the operation began.
    pub(super) fn inval_counter(&self) -> u32 {
        self.raw().inval_counter
    }

    /// The file that is read, if it is known already.
    pub(crate) fn file(&self) -> Option<&File> {
        // SAFETY: Null or a file, by the type invariant.
        NonNull::new(self.raw().cache_priv2)
            .map(|file| unsafe { File::from_raw(file.as_ptr().cast()) })
    }

    /// Sets the file that is read, in place of one that was set before.
    pub(crate) fn set_file(&mut self, file: Option<ARef<File>>) {
        let new = match file {
            Some(file) => ARef::into_raw(file).as_ptr().cast(),
            None => core::ptr::null_mut(),
        };
        // SAFETY: The resources are ours.
        let old = unsafe { core::mem::replace(&mut (*self.0.get()).cache_priv2, new) };
        // SAFETY: A file with a reference, by the type invariant.
        drop(NonNull::new(old.cast::<File>()).map(|old| unsafe { ARef::from_raw(old) }));
    }

    /// Lets reads of this operation go to these functions.
    pub(super) fn set_ops(&mut self, ops: &'static bindings::netfs_cache_ops) {
        // SAFETY: The resources are ours.
        unsafe { (*self.0.get()).ops = ops };
    }
}
