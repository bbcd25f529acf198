// SPDX-License-Identifier: MIT OR Apache-2.0

//! The pure files of the kernel module, compiled for the host.
//!
//! Nothing is copied: each module below is the very file that the kernel module is built from, under
//! the same path within the crate. These files use `core` only, so what is tested, explored and fuzzed
//! here is what runs in the kernel. [`layout`] and [`model`], with the windows
//! that the latter needs into the table (`inspect` and `spoil`), alone belong to the host.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[path = "../../../coherency.rs"]
pub mod coherency;

#[path = "../../../errno.rs"]
pub mod errno;

#[path = "../../../ext4.rs"]
pub mod ext4;

#[path = "../../../identity.rs"]
pub mod identity;

#[path = "../../../key.rs"]
pub mod key;

#[path = "../../../limits.rs"]
pub mod limits;

#[path = "../../../present.rs"]
pub mod present;

/// What is written to and read from `/dev/cachefiles`.
#[path = "../../../daemon"]
pub mod daemon {
    pub mod command;
}

/// The state of the requests, and what every event does to it.
#[path = "../../../ondemand"]
pub mod ondemand {
    pub mod answer;
    pub mod deadline;
    pub mod delivery;
    pub mod ending;
    #[path = "../user/core/src/model/inspect.rs"]
    pub mod inspect;
    pub mod message;
    pub mod queue;
    #[path = "../user/core/src/model/spoil.rs"]
    pub mod spoil;
    pub mod state;
    pub mod table;
}

pub mod layout;
pub mod model;
