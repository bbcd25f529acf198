// SPDX-License-Identifier: MIT OR Apache-2.0

//! What outlives a module and a boot: the store on disk.
//!
//! The program `ondemand-store` is built from this. A test of `ondemand-selftest` has one module and
//! one boot; what is here fills a store under one module or before a power cut, and looks at it
//! under the other module or after the boot that follows.

pub mod cut;
pub mod exchange;
pub mod items;
pub mod keys;
pub mod listing;
pub mod modules;
pub mod reorder;
pub mod report;
pub mod slice;
pub mod visit;
