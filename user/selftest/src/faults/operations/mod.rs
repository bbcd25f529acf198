// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is done while something fails, one function an operation.
//!
//! Each prepares what it needs, does its operation between [`Rig::begin`] and [`Rig::end`], looks at
//! what came of it, and does it again without a fault. It fails if a byte is wrong, if somebody waits
//! beyond a deadline, if something fails without a fault, or if it does not work again.

mod commits;
mod culls;
mod mounts;
mod reads;
mod service;

use anyhow::Result;

use super::plan::Operation;
use super::rig::After;
use super::rig::Rig;

/// One run of an operation; the injector is armed.
///
/// # Errors
///
/// See above.
pub fn run(rig: &mut Rig<'_>, operation: Operation) -> Result<After> {
    match operation {
        Operation::Bind => service::bind(rig),
        Operation::Lookup => mounts::lookup(rig),
        Operation::LookupStored => mounts::lookup_stored(rig),
        Operation::Open => mounts::open(rig),
        Operation::OpenStored => mounts::open_stored(rig),
        Operation::Read => reads::read(rig),
        Operation::Fill => reads::fill(rig),
        Operation::FillBuffered => reads::fill_buffered(rig),
        Operation::Commit => commits::early(rig),
        Operation::CommitLate => commits::late(rig),
        Operation::Cull => culls::file(rig),
        Operation::CullDirectory => culls::directory(rig),
        Operation::Unbind => service::unbind(rig),
    }
}
