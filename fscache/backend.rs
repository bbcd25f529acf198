// SPDX-License-Identifier: GPL-2.0

//! What fscache asks of a cache, and what a netfs asks that reads from it.
//!
//! C headers: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h) (`struct fscache_cache_ops`),
//! [`include/linux/netfs.h`](srctree/include/linux/netfs.h) (`struct netfs_cache_ops`)

use crate::bindings;
use crate::fscache::attachment::Attachment;
use crate::fscache::cookie::Cookie;
use crate::fscache::resources::CacheResources;
use crate::fscache::termination::PendingRead;
use crate::fscache::volume::VolumeCookie;
use crate::kcompat::fs::File;
use crate::kcompat::types::ARef;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::ArcBorrow;
use kernel::types::ForeignOwnable;

/// A cache backend. fscache calls it on its own workqueue and on the system's, except for `begin_operation`, which
/// runs in the reader; a volume is dropped in the task that drops its last reference, which unmounts as a rule; nothing may wait there for a daemon. When the module goes, some may still be on their way out:
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
        attachment: Attachment<Self::Volume>,
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

/// What a netfs is to do about a piece that it wants to read.
pub(crate) enum Source {
    /// Fill it with zeros: it is beyond the end.
    Zeroes,
    /// Read the first so many bytes of it from the cache.
    Cache(usize),
    /// Download the first so many bytes of it, and store them.
    Server(usize),
}

/// What reads from a cache do.
pub(crate) trait Operations: 'static {
    /// The backend that it belongs to.
    type Backend: Backend;

    /// Makes sure that all of `start..start + len` is in the store. May wait for a daemon.
    ///
    /// # Errors
    ///
    /// The read that follows fails with `EIO`.
    fn prepare_ondemand_read(
        object: ArcBorrow<'_, <Self::Backend as Backend>::Object>,
        start: u64,
        len: usize,
    ) -> Result<ARef<File>>;

    /// Tells where a piece is to be had; `size` is that of the netfs's file.
    fn prepare_read(
        object: ArcBorrow<'_, <Self::Backend as Backend>::Object>,
        start: u64,
        len: usize,
        size: u64,
    ) -> Source;

    /// The first data in `start..start + len` as start and length, in whole granules.
    ///
    /// # Errors
    ///
    /// `ENODATA` if there is none, `ENOBUFS` if that cannot be told.
    fn query_occupancy(
        object: ArcBorrow<'_, <Self::Backend as Backend>::Object>,
        start: u64,
        len: usize,
        granularity: usize,
    ) -> Result<(u64, usize)>;

    /// Carries out `read` from `start` on, and terminates it once.
    fn read(
        object: ArcBorrow<'_, <Self::Backend as Backend>::Object>,
        file: &File,
        start: u64,
        read: PendingRead<'_>,
    );
}

/// The C side's table of functions of a backend; every backend has it (`vtable`).
pub(crate) trait HasTable: Backend {
    /// The table.
    const TABLE: bindings::fscache_cache_ops;
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
