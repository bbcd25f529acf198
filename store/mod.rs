// SPDX-License-Identifier: GPL-2.0

//! The store: a directory of files, one an object, that outlives every cache that is bound to it.
//!
//! - [`key`], [`coherency`] and [`identity`] are the format on disk (`docs/protocol.md`); [`xattr`] reads and
//!   writes the attributes, [`namei`] finds, makes, commits and deletes the files.
//! - [`contents`], over the pure map in [`present`], knows which pages of a file hold data.
//! - [`space`] and [`limits`] tell how full the disk is.
//! - [`probe`] and [`ext4`] tell at bind whether a file system can hold a store.

#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod coherency;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod ext4;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod identity;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod key;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod limits;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod present;

pub(crate) mod contents;
pub(crate) mod namei;
pub(crate) mod probe;
pub(crate) mod space;
pub(crate) mod xattr;
