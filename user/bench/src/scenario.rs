// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is measured: the scenarios, and the figures that each comes to.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

/// One of the things that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Scenario {
    /// Cold, sequential.
    S1,
    /// Cold, random, one reader.
    S2,
    /// Cold, random, 16 readers, four threads of the daemon.
    S3,
    /// Cold, random, 64 readers, one thread of the daemon.
    S4,
    /// Warm.
    S5,
    /// Many images of one domain.
    S6,
    /// `restore` with many READs in flight.
    S7,
    /// `poll` and `read` with many READs parked.
    S8,
    /// The daemon is killed again and again.
    S9,
    /// A compressed image, half of it prefetched.
    S10,
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// The larger one.
    Higher,
    /// The smaller one.
    Lower,
}

/// Something that a scenario measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    /// Its name in the results.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) title: &'static str,
    /// Which way is better.
    pub(crate) better: Better,
    /// Whether it may be shown as it is: memory, and ratios of a module to itself. Times of one
    /// machine may not.
    pub(crate) plain: bool,
}

const fn higher(name: &'static str, title: &'static str) -> Figure {
    Figure {
        name,
        title,
        better: Better::Higher,
        plain: false,
    }
}

const fn lower(name: &'static str, title: &'static str) -> Figure {
    Figure {
        name,
        title,
        better: Better::Lower,
        plain: false,
    }
}

const fn plain(name: &'static str, title: &'static str) -> Figure {
    Figure {
        name,
        title,
        better: Better::Lower,
        plain: true,
    }
}

const SEQUENTIAL: [Figure; 1] = [higher("mb_s", "MB/s")];

const RANDOM: [Figure; 3] = [
    higher("op_s", "op/s"),
    lower("p50_us", "p50"),
    lower("p99_us", "p99"),
];

const WARM: [Figure; 2] = [
    higher("seq_mb_s", "sequential, MB/s"),
    higher("rand_op_s", "random, op/s"),
];

const MANY: [Figure; 5] = [
    lower("mount_s", "mounting all"),
    lower("mount_others_s", "mounting all but the first"),
    lower("unmount_s", "unmounting all"),
    plain("slab_kib", "slab memory a mount, KiB"),
    plain("vmalloc_kib", "vmalloc memory a mount, KiB"),
];

const RESTORE: [Figure; 4] = [
    lower("reads_100_s", "100 READs"),
    lower("reads_1000_s", "1,000 READs"),
    lower("reads_10000_s", "10,000 READs"),
    plain("growth", "10,000 READs over 1,000"),
];

const PARKED: [Figure; 4] = [
    lower("poll_ns", "poll"),
    lower("read_ns", "empty read"),
    plain("poll_growth", "poll, with many parked over none"),
    plain("read_growth", "empty read, with many parked over none"),
];

const KILLS: [Figure; 2] = [
    lower("p50_us", "kill to first READ, p50"),
    lower("p99_us", "kill to first READ, p99"),
];

const LZ4: [Figure; 1] = [lower("s", "time to read it")];

impl Scenario {
    /// All of them, in the order in which they run. The last one may leave the C module unusable.
    pub(crate) const ALL: [Scenario; 10] = [
        Scenario::S1,
        Scenario::S2,
        Scenario::S3,
        Scenario::S4,
        Scenario::S5,
        Scenario::S6,
        Scenario::S7,
        Scenario::S8,
        Scenario::S9,
        Scenario::S10,
    ];

    /// What it is.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Scenario::S1 => "cold, sequential",
            Scenario::S2 => "cold, random, 1 reader",
            Scenario::S3 => "cold, random, 16 readers, 4 threads",
            Scenario::S4 => "cold, random, 64 readers, 1 thread",
            Scenario::S5 => "warm",
            Scenario::S6 => "many images of one domain",
            Scenario::S7 => "restore with READs in flight",
            Scenario::S8 => "READs parked",
            Scenario::S9 => "daemon killed",
            Scenario::S10 => "lz4, half prefetched",
        }
    }

    /// What it measures.
    pub(crate) fn figures(self) -> &'static [Figure] {
        match self {
            Scenario::S1 => &SEQUENTIAL,
            Scenario::S2 | Scenario::S3 | Scenario::S4 => &RANDOM,
            Scenario::S5 => &WARM,
            Scenario::S6 => &MANY,
            Scenario::S7 => &RESTORE,
            Scenario::S8 => &PARKED,
            Scenario::S9 => &KILLS,
            Scenario::S10 => &LZ4,
        }
    }

    /// Whether there is something that neither module can be faster than.
    pub(crate) fn has_limit(self) -> bool {
        self <= Scenario::S5
    }

    /// Whether it is run in other modes than the classic one: the others say nothing about it.
    pub(crate) fn has_modes(self) -> bool {
        self <= Scenario::S5
    }

    /// Whether a C module that hangs in it is to be expected, and cannot be unloaded afterwards.
    pub(crate) fn last(self) -> bool {
        self == Scenario::S10
    }

    /// How long a run may take.
    pub(crate) fn deadline(self, quick: bool) -> Duration {
        Duration::from_secs(match (self, quick) {
            (Scenario::S10, _) => 20,
            (Scenario::S7 | Scenario::S8, false) => 240,
            _ => 90,
        })
    }
}

impl FromStr for Scenario {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Scenario::ALL
            .into_iter()
            .find(|scenario| scenario.to_string() == text)
            .with_context(|| format!("no scenario {text:?}: s1 to s10"))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_lowercase())
    }
}

impl TryFrom<String> for Scenario {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Scenario> for String {
    fn from(scenario: Scenario) -> Self {
        scenario.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.to_string().parse::<Scenario>().unwrap(), scenario);
        }
        assert!("s11".parse::<Scenario>().is_err());
        assert!("S1".parse::<Scenario>().is_err());
    }

    #[test]
    fn figures_of_a_scenario_have_different_names() {
        for scenario in Scenario::ALL {
            let names: BTreeSet<_> = scenario.figures().iter().map(|f| f.name).collect();
            assert_eq!(names.len(), scenario.figures().len(), "{scenario}");
        }
        // What may leave a module unusable is last.
        assert!(Scenario::ALL.iter().rev().skip(1).all(|s| !s.last()));
    }
}
