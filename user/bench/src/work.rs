// SPDX-License-Identifier: MIT OR Apache-2.0

//! What one run is told, and what it says: a run is a process of its own, so that it can be ended
//! whatever it waits for.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use crate::image::Recipe;
use crate::image::PLAIN;
use crate::image::PLAIN_QUICK;
use crate::mode::Fill;
use crate::mode::Mode;
use crate::scenario::Scenario;
use crate::subject::Subject;
use crate::times::Distribution;

/// What a run is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// Which scenario.
    pub(crate) scenario: Scenario,
    /// On what.
    pub(crate) subject: Subject,
    /// In which mode.
    pub(crate) mode: Mode,
    /// What the daemon writes for a READ.
    pub(crate) fill: Fill,
    /// Whether sizes are the small ones.
    pub(crate) quick: bool,
    /// The images, in memory.
    pub(crate) images: PathBuf,
    /// A directory on the file system of the caches.
    pub(crate) disk: PathBuf,
    /// A directory in memory, for mount points.
    pub(crate) dir: PathBuf,
    /// This program, in memory.
    pub(crate) program: PathBuf,
    /// What the orders follow from.
    pub(crate) seed: u64,
}

impl Work {
    /// How large something is: the size in full, and the one with `--quick`.
    pub(crate) fn size<T>(&self, full: T, quick: T) -> T {
        match self.quick {
            true => quick,
            false => full,
        }
    }

    /// The image that is read as a whole.
    pub(crate) fn plain(&self) -> &'static Recipe {
        self.size(&PLAIN, &PLAIN_QUICK)
    }
}

/// What a run says, one line each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// Something was measured.
    Figure(String, f64),
    /// How long each operation took.
    Times(Distribution),
    /// The module does not know the mode.
    NotSupported(String),
    /// Something went wrong.
    Failed(String),
    /// The deadline has passed; daemon and device are gone.
    Hangs,
    /// And even so, readers or mounts do not come to an end.
    Stuck,
}

impl Event {
    /// Says it.
    ///
    /// # Errors
    ///
    /// Nobody listens.
    pub(crate) fn say(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(self)?)?;
        Ok(out.flush()?)
    }
}

/// Says that something was measured.
///
/// # Errors
///
/// Nobody listens.
pub(crate) fn figure(name: impl Into<String>, value: f64) -> Result<()> {
    Event::Figure(name.into(), value).say()
}
