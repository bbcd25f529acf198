// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration of `serve`.
//!
//! | module | what it is |
//! |---|---|
//! | [`source`] | where blobs are |
//! | [`requests`] | how a remote source may be asked |
//! | [`secret`] | places of secrets |

pub mod requests;
pub mod secret;
pub mod source;
