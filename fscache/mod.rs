// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the cache side of fscache.
//!
//! C headers: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h),
//! [`include/linux/netfs.h`](srctree/include/linux/netfs.h); see also
//! `Documentation/filesystems/caching/backend-api.rst`.

pub(crate) mod backend;
pub(crate) mod cache;
pub(crate) mod cookie;
pub(crate) mod netfs;
pub(crate) mod stats;
pub(crate) mod volume;
