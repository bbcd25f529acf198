// SPDX-License-Identifier: MIT OR Apache-2.0

//! A model of all that surrounds a request table: readers, fscache, a daemon of several threads that
//! may die, and the callers in the kernel that carry out effects.
//!
//! [`Sim`] holds a real table, the very code of the module, and plays everybody else. Each of its
//! methods is one hold of the table's lock with the effects that follow it. What a caller may put off
//! is put off: work items, the rest of a long walk ([`More`](crate::ondemand::queue::More)), the
//! second half of a delivery or of a `copen` lie in lists until somebody takes them up, so that every
//! order of events can be tried. After each step [`Sim::check`] holds the table against its
//! invariants, and [`Sim::serve`] and [`Sim::tear_down`] show on a copy that what has begun can end.
//!
//! [`Sim::key`] writes down all that makes a difference to what can follow, so that an exploration
//! (the crate `ondemand-model`) knows equal situations when it meets them.
//!
//! A [`Fault`] breaks one rule on purpose, to show that the checks would notice.

pub mod check;
pub mod daemon;
pub mod death;
pub mod event;
pub mod fault;
pub mod held;
pub mod kernel;
pub mod key;
pub mod places;
pub mod serving;
pub mod sim;

pub use event::Event;
pub use fault::Fault;
pub use serving::Policy;
pub use sim::Sim;
