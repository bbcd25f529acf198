// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration of `serve`: what flags and file say, and what holds when neither says anything.
//!
//! | module | what it is |
//! |---|---|
//! | [`mod@file`] | the TOML file |
//! | [`settings`] | flags before file before defaults |
//! | [`source`] | the tables `[sources.NAME]` |
//! | [`requests`] | and in them, how a source may be asked |
//! | [`secret`] | places of secrets |

pub mod file;
pub mod requests;
pub mod secret;
pub mod settings;
pub mod source;
