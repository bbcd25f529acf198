// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mockd`: a daemon for `/dev/cachefiles` that does wrong what a script tells it.
//!
//! What no rule of the [`Script`] is about it does as a daemon should, from a directory of images.
//! It says each wrong thing in a line on its standard output, in one `write`, so that a test can
//! look at it, also when the daemon is dead.
//!
//! It is for tests of the kernel's side: a reader must get right bytes or a prompt error whatever
//! such a daemon does, as long as a well-behaved one comes after it.
//!
//! - [`script`]: what may be asked for
//! - [`mock`]: the daemon
//! - [`cli`]: the program

pub mod chaos;
pub mod cli;
pub mod files;
pub mod image;
pub mod kept;
pub mod mock;
pub mod namespace;
mod rules;
pub mod say;
pub mod script;
mod side;

pub use image::Image;
pub use mock::Mock;
pub use script::Script;
