// SPDX-License-Identifier: GPL-2.0

//! References that C code keeps, and references that are counted.
//!
//! Upstream: `kernel::types::ForeignOwnable`, whose pointers were to constants up to 6.13, and `kernel::sync::aref`,
//! new in 6.17 and the only place of `ARef` since 7.1. The function can go when 6.13 is not built for, the rest when
//! 6.16 is not.

use kernel::ffi::c_void;
use kernel::types::ForeignOwnable;

#[cfg(ondemand_sync_aref)]
pub(crate) use kernel::sync::aref::ARef;
#[cfg(ondemand_sync_aref)]
pub(crate) use kernel::sync::aref::AlwaysRefCounted;
#[cfg(not(ondemand_sync_aref))]
pub(crate) use kernel::types::ARef;
#[cfg(not(ondemand_sync_aref))]
pub(crate) use kernel::types::AlwaysRefCounted;

/// As `ForeignOwnable::into_foreign`.
pub(crate) fn into_foreign<T: ForeignOwnable>(owned: T) -> *mut c_void {
    owned.into_foreign() as *mut c_void
}
