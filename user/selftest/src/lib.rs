// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the `/dev/cachefiles` protocol, and what they are built from.
//!
//! [`harness`] plays the daemon, mounts and reads in other processes, and runs each test in
//! isolation; [`tests`] holds the tests by subject. What passing means is written in the project's
//! `docs/protocol.md`; a test of a defect of the C module carries the defect's id in its name.

pub mod faults;
pub mod harness;
pub mod matrix;
pub mod store;
pub mod tests;
