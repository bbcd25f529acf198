// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a run is about: one module, or a limit of both.

use serde::Deserialize;
use serde::Serialize;

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// The kernel's own `cachefiles`.
    C,
    /// `cachefiles_ondemand`.
    Ours,
    /// What neither can be faster than.
    Limit,
}

impl Subject {
    /// What it is called in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subject::C => "C",
            Subject::Ours => "ours",
            Subject::Limit => "limit",
        }
    }
}
