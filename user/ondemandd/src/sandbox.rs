// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a worker gives up before it answers the first message.
//!
//! A worker parses what servers on the network send, so it is the process that somebody would break into. It
//! needs the device, which is open, its sources, which are open, and the network if one of them is remote;
//! everything else it gives up, in this order, in its only thread, so that all later ones inherit it:
//!
//! | step | what is left |
//! |---|---|
//! | secrets, certificates and directories are opened | all of it |
//! | capabilities leave the bounding set | all of it, but nothing that is executed could get it back |
//! | [`user`]: groups, group, user | what that user may do |
//! | capabilities, `no_new_privs` | the same without any capability, also for root |
//! | [`files`]: Landlock | reading the sources, and what looking up host names takes |
//! | [`calls`]: seccomp | system calls that a worker makes, and harmless ones |
//!
//! The first four cannot be lacking in a kernel that has the device, and a failure of theirs is an error.
//! Without Landlock or seccomp there is a line in the log, and an error if the sandbox is
//! [`SandboxMode::Required`].

pub mod calls;
pub mod files;
pub mod user;

use std::os::fd::BorrowedFd;

use anyhow::bail;
use anyhow::Context;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use rustix::thread::CapabilitySets;
use serde::Deserialize;
use tracing::warn;

use self::user::Identity;
use crate::control::server::may_ask;

/// How much of the sandbox there must be.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxMode {
    /// All of it; a kernel without Landlock or seccomp is an error.
    Required,
    /// As much as the kernel has.
    #[default]
    BestEffort,
    /// None: the worker may do what the keeper may, and `user` means nothing.
    Off,
}

/// What a worker keeps.
#[derive(Debug)]
pub struct Sandbox<'a> {
    /// Whether something that the kernel lacks is an error.
    pub required: bool,
    /// Who the worker becomes.
    pub identity: &'a Identity,
    /// Directories of which all files may be read.
    pub sources: Vec<BorrowedFd<'a>>,
    /// Whether the network may be used.
    pub network: bool,
}

impl Sandbox<'_> {
    /// Gives up everything else, for this thread, and for those that it will start; there is no way back. To
    /// be called while the process has one thread.
    ///
    /// # Errors
    ///
    /// A step failed; the process may have given up some of it by then, and is to end.
    pub fn enter(&self) -> anyhow::Result<()> {
        let keeper = rustix::process::geteuid();
        empty_bounding_set()?;
        self.identity.assume()?;
        let may_ask = may_ask(rustix::process::geteuid(), keeper);
        drop_capabilities()?;
        rustix::thread::set_no_new_privs(true).context("cannot set no_new_privs")?;
        self.confirm("Landlock", files::restrict(self))?;
        self.confirm(
            "seccomp",
            calls::restrict(calls::domains(self.network, may_ask)),
        )
    }

    /// Makes what is lacking a line in the log, or an error.
    fn confirm(&self, what: &str, result: anyhow::Result<bool>) -> anyhow::Result<()> {
        let reason = match result {
            Ok(true) => return Ok(()),
            Ok(false) => "this kernel has none".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if self.required {
            bail!("no sandbox without {what}: {reason}; `sandbox = \"best-effort\"` does without");
        }
        warn!(reason, "the worker does without {what}");
        Ok(())
    }
}

/// Takes all capabilities out of the bounding set. One that lacks `CAP_SETPCAP` may keep it: without capabilities
/// and with `no_new_privs` nothing comes of it.
fn empty_bounding_set() -> anyhow::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel has no more.
            Err(Errno::INVAL) => break,
            Err(Errno::PERM) => {
                warn!("no CAP_SETPCAP: the worker's bounding set of capabilities stays");
                break;
            }
            Err(errno) => return Err(errno).context("cannot empty the bounding set"),
        }
    }
    Ok(())
}

fn drop_capabilities() -> anyhow::Result<()> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::clear_ambient_capability_set().context("cannot clear ambient capabilities")?;
    rustix::thread::set_capabilities(None, none).context("cannot drop capabilities")
}
