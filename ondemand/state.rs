// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The states of an object.
//!
//! ```text
//!                 first lookup
//!                      |
//!                      v
//!   +----------> REOPENING -- copen id,SIZE ---> OPEN
//!   |                  |                           |
//!   | a READ, or       | copen id,-ERRNO,          | its fd closed
//!   | a waiting        | or a bad answer           |
//!   | mount            v                           |
//!   +---------------CLOSE <------------------------+
//!
//!   DROPPING: from any state, when fscache withdraws the cookie; final.
//! ```
//!
//! The names are those of the failover series (Linux 6.8); the first opening is a REOPENING too,
//! since nothing distinguishes them but that there is no size to compare with.

use crate::errno::Errno;

/// The state of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// No daemon serves it. A READ, or a reader that waits for the first opening, reopens it.
    Close,
    /// The daemon holds its anonymous fd and has answered its OPEN.
    Open {
        /// The object_id of that fd.
        object_id: u32,
    },
    /// An OPEN is on its way; READs are parked.
    Reopening(Opening),
    /// Withdrawn. Its entry stays until the last anonymous fd is closed.
    Dropping,
}

/// How far an opening has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// Its reopen work is to send the OPEN.
    Queued,
    /// The OPEN is in the queue under this msg_id, or with the daemon.
    Pending {
        /// Which request.
        msg_id: u32,
    },
    /// `copen` has answered it; the file is being checked against the answer.
    Validating,
}

impl State {
    /// The number that tracepoints show: 0 close, 1 open, 2 reopening, 3 dropping.
    pub fn number(self) -> u32 {
        match self {
            State::Close => 0,
            State::Open { .. } => 1,
            State::Reopening(_) => 2,
            State::Dropping => 3,
        }
    }
}

/// What a reader that needs an open object is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaited {
    /// The object has been open: size and file are known.
    Ready,
    /// Not yet; ask again after the object's next `WakeObject`.
    Pending,
    /// The opening failed, the object is being dropped, or the cache is dead.
    Failed(Errno),
}
