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

#[path = "../../../errno.rs"]
pub mod errno;

/// What is written to and read from `/dev/cachefiles`.
#[path = "../../../daemon"]
pub mod daemon {
    pub mod command;
}

/// The format of the store, and what is decided about it.
#[path = "../../../store"]
pub mod store {
    pub mod coherency;
    pub mod ext4;
    pub mod identity;
    pub mod key;
    pub mod limits;
    pub mod options;
    pub mod present;
}
pub use store::coherency;
pub use store::ext4;
pub use store::identity;
pub use store::key;
pub use store::limits;
pub use store::present;

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
