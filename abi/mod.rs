// SPDX-License-Identifier: GPL-2.0

//! The numbers of the user-space interface, taken from `cachefiles.h`. `ondemand/` checks its own against them.

use crate::bindings;

/// `CACHEFILES_IOC_READ_COMPLETE`.
pub(crate) const READ_COMPLETE: u32 = bindings::READ_COMPLETE;

/// Bytes of a message's header, of an OPEN's fixed part, and of a READ's body.
pub(crate) const SIZEOF_MSG: usize = bindings::SIZEOF_MSG as usize;
pub(crate) const SIZEOF_OPEN: usize = bindings::SIZEOF_OPEN as usize;
pub(crate) const SIZEOF_READ: usize = bindings::SIZEOF_READ as usize;

/// What a message asks for.
pub(crate) const OP_OPEN: u32 = bindings::cachefiles_opcode_CACHEFILES_OP_OPEN;
pub(crate) const OP_CLOSE: u32 = bindings::cachefiles_opcode_CACHEFILES_OP_CLOSE;
pub(crate) const OP_READ: u32 = bindings::cachefiles_opcode_CACHEFILES_OP_READ;
