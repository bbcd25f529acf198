// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocations and disk requests that fail, one in each run: the program `ondemand-faults`.
//!
//! An [`operations`] entry does one thing that a cache does, such as a bind or a fill. For n = 1, 2, 3
//! ... it is done with the n-th allocation, or the n-th request to the disk, failing, until a run
//! ends without having come to an n-th one. Each run looks at what the reader got, that the
//! operation works again without a fault, and at the kernel's log.
//!
//! It needs the debug kernel (`scripts/kernel/debug.config`), and root in a virtual machine.

mod answers;
pub mod attribute;
pub mod disk;
pub mod helper;
pub mod injector;
pub mod log;
pub mod operations;
pub mod plan;
pub mod rig;
pub mod sweep;
pub mod symbols;
