// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a daemon has: messages that it has read, and open anonymous fds.

use crate::ondemand::queue::Kind;

/// A message that the daemon has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its msg_id.
    pub msg_id: u32,
    /// Its object_id.
    pub object_id: u32,
    /// What is asked.
    pub kind: Kind,
    /// The place of the object, which an anonymous fd knows.
    pub place: u32,
    /// Which daemon has it, see [`Sim::apart`](super::Sim::apart).
    pub owner: u8,
    /// `restore` was written since: it is to be delivered again.
    pub restored: bool,
}

/// An open anonymous fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd {
    /// The place of its object.
    pub place: u32,
    /// Which daemon has it, see [`Sim::apart`](super::Sim::apart).
    pub owner: u8,
}
