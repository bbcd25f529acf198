// SPDX-License-Identifier: GPL-2.0

//! The numbers of the user-space interface, taken from `cachefiles.h` and checked against the pure
//! encoder.

use crate::bindings;
use crate::ondemand::message;

/// `CACHEFILES_IOC_READ_COMPLETE`.
pub(crate) const READ_COMPLETE: u32 = bindings::READ_COMPLETE;

kernel::static_assert!(message::HEADER == bindings::SIZEOF_MSG as usize);
kernel::static_assert!(message::OPEN_BODY == bindings::SIZEOF_OPEN as usize);
kernel::static_assert!(message::READ_BODY == bindings::SIZEOF_READ as usize);
