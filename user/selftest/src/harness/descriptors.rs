// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process that has no file descriptor left.
//!
//! C header: `include/uapi/asm-generic/resource.h` (`RLIMIT_NOFILE`)

use std::os::fd::AsRawFd;

use anyhow::Result;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use rustix::process::Resource;
use rustix::process::Rlimit;

/// Runs something with no descriptor left to be opened.
///
/// # Errors
///
/// The limit cannot be set.
pub fn without_descriptors<T>(run: impl FnOnce() -> T) -> Result<T> {
    let old = getrlimit(Resource::Nofile);
    // The lowest free number: from there on all are refused, below it none is free.
    let probe = rustix::io::dup(std::io::stdin())?.as_raw_fd();
    let none = Rlimit {
        current: Some(u64::try_from(probe)?),
        maximum: old.maximum,
    };
    setrlimit(Resource::Nofile, none)?;
    let result = run();
    setrlimit(Resource::Nofile, old)?;
    Ok(result)
}
