// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who the worker would be, and whether it could read its sources then.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Check;
use crate::config::source::SourceConfig;
use crate::sandbox::user::Identity;
use crate::sandbox::SandboxMode;

const NAME: &str = "worker";

/// What there is to say about the worker's user and its sources.
pub(super) fn look_at(
    user: Option<&str>,
    mode: Option<SandboxMode>,
    source: Option<&Path>,
    sources: &BTreeMap<String, SourceConfig>,
) -> Check {
    if mode == Some(SandboxMode::Off) {
        let advice = "it may do what the keeper may; see `sandbox` in the configuration";
        return Check::note(NAME, "without sandbox", advice);
    }
    let identity = match Identity::find(user) {
        Ok(identity) => identity,
        Err(error) => return Check::bad(NAME, format!("{error:#}"), "see --user"),
    };
    let named = sources.values().filter_map(|source| match source {
        SourceConfig::Directory(directory) => Some(directory.path.as_path()),
        _ => None,
    });
    // Who is not root cannot try what another user may do.
    if rustix::process::geteuid().is_root() {
        for path in source.into_iter().chain(named) {
            if let Err(error) = identity.check_source(path) {
                let advice = "the daemon would not start with it";
                return Check::bad(NAME, format!("{error:#}"), advice);
            }
        }
    }
    let found = format!("user {identity}");
    // What is there if and only if the kernel has Landlock on.
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    match modules.split(',').any(|module| module.trim() == "landlock") {
        true => Check::good(NAME, found + ", held to its sources by Landlock"),
        false if modules.is_empty() => Check::good(NAME, found),
        false => Check::note(
            NAME,
            found + ", not held to its sources by Landlock",
            "add landlock to lsm= on the kernel's command line",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_user_that_is_not_there_is_bad() {
        let none = BTreeMap::new();
        let check = look_at(Some("nobody-of-that-name"), None, None, &none);
        assert_eq!(check.verdict, Verdict::Bad);
        let check = look_at(Some("0:0"), None, Some(Path::new("/")), &none);
        assert!(check.found.contains("user 0:0"), "{}", check.found);
        let off = Some(SandboxMode::Off);
        let check = look_at(Some("nobody-of-that-name"), off, None, &none);
        assert_eq!(check.verdict, Verdict::Note);
    }
}
