// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every order of the events of a small cache.
//!
//! [`ondemand_core::model::Sim`] is a real request table, the code of the kernel module, and everybody
//! around it. This crate lets everything happen to it that can happen ([`moves`]), in every order, within
//! [`scope`]s that say how often each unplanned event may come. [`explore()`] visits every situation
//! once and checks it; [`cycles`] shows that a daemon that serves comes to an end, whatever it is sent.

pub mod cycles;
pub mod explore;
pub mod moves;
pub mod scope;

pub use explore::explore;
pub use explore::Outcome;
pub use explore::Property;
pub use scope::Scope;
