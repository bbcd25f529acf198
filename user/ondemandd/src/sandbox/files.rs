// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which files a worker may open: Landlock.
//!
//! It holds whoever the worker's user is. What is open already stays open: the device, the sources'
//! directories, standard error.

use anyhow::Context;
use landlock::Access;
use landlock::AccessFs;
use landlock::AccessNet;
use landlock::PathBeneath;
use landlock::PathFd;
use landlock::Ruleset;
use landlock::RulesetAttr;
use landlock::RulesetCreatedAttr;
use landlock::RulesetStatus;
use landlock::Scope;
use landlock::ABI;

use super::Sandbox;

/// The newest version whose restrictions are asked for: that of Linux 6.12. An older kernel has fewer.
const NEWEST: ABI = ABI::V6;

/// What looking up host names may read, besides [`SETTINGS`] or [`SETTINGS_FOR_ROOT`]: the C library's modules,
/// and files that are replaced while the worker runs, so that a rule has to name their directory.
const NAMES: &[&str] = &[
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
];

/// Where it is set how names are looked up. These files are replaced, too.
const SETTINGS: &[&str] = &["/etc"];

/// The same for root, who owns more of /etc than anybody should read. Of these files the ones that are there
/// at the start are meant, so that a change of them takes a new worker.
const SETTINGS_FOR_ROOT: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
];

/// Leaves reading the sources, and what the network takes; `false` if the kernel has no Landlock.
pub(super) fn restrict(sandbox: &Sandbox<'_>) -> anyhow::Result<bool> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|it| it.handle_access(AccessNet::BindTcp))
        .and_then(|it| it.scope(Scope::from_all(NEWEST)))
        .context("cannot describe what is restricted")?;
    if !sandbox.network {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut ruleset = ruleset.create().context("cannot make a ruleset")?;
    for source in &sandbox.sources {
        ruleset = ruleset
            .add_rule(PathBeneath::new(source, read))
            .context("cannot allow a source")?;
    }
    let (names, settings): (&[_], _) = match (sandbox.network, sandbox.identity.is_root()) {
        (false, _) => (&[], &[][..]),
        (true, false) => (NAMES, SETTINGS),
        (true, true) => (NAMES, SETTINGS_FOR_ROOT),
    };
    for path in settings.iter().chain(names) {
        // What is not there need not be read.
        let Ok(fd) = PathFd::new(path) else {
            continue;
        };
        ruleset = ruleset
            .add_rule(PathBeneath::new(fd, AccessFs::ReadFile))
            .with_context(|| format!("cannot allow {path}"))?;
    }
    let status = ruleset.restrict_self().context("cannot restrict files")?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
