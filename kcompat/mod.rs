// SPDX-License-Identifier: GPL-2.0

//! What newer kernel crates have and that of 6.12 lacks, and what differs between them.
//!
//! Paths, types and methods are named as they are there wherever they exist, so that a file of this
//! folder goes when each kernel that is built for has its counterpart. What that is, and since when, stands at the
//! head of each. Two have none: [`tracepoint`], whose functions are this module's own, and [`pinned`].

pub(crate) mod alloc;
pub(crate) mod completion;
pub(crate) mod delayed_work;
pub(crate) mod error;
pub(crate) mod fd;
pub(crate) mod fmt;
pub(crate) mod fs;
pub(crate) mod iov;
pub(crate) mod miscdevice;
pub(crate) mod module_param;
pub(crate) mod pinned;
pub(crate) mod poll;
pub(crate) mod print;
pub(crate) mod str;
pub(crate) mod time;
pub(crate) mod tracepoint;
pub(crate) mod types;
pub(crate) mod uaccess;
pub(crate) mod workqueue;
pub(crate) mod xarray;
