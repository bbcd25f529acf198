// SPDX-License-Identifier: MIT OR Apache-2.0

//! Everything that was measured, as it is kept: one JSON file a session.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use crate::machine::Machine;
use crate::mode::Fill;
use crate::mode::Mode;
use crate::scenario::Scenario;
use crate::subject::Subject;
use crate::times::Distribution;

/// Changes with what the fields mean.
const FORMAT: u32 = 1;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// It came to its end.
    Done,
    /// It did not within so many seconds.
    Hangs(u64),
    /// The module does not know the mode; what it said.
    NotSupported(String),
    /// Something went wrong.
    Failed(String),
}

/// One scenario, once, on one module in one mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Which scenario.
    pub(crate) scenario: Scenario,
    /// Which pair it belongs to, from 0.
    pub(crate) pair: u32,
    /// On what.
    pub(crate) subject: Subject,
    /// In which mode.
    pub(crate) mode: Mode,
    /// How it ended.
    pub(crate) end: End,
    /// What was measured by then, by its name.
    pub(crate) figures: BTreeMap<String, f64>,
    /// How long each operation took, if the scenario looks at that.
    pub(crate) times: Option<Distribution>,
    /// Seconds since the session began.
    pub(crate) at: f64,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// [`FORMAT`]
    pub(crate) format: u32,
    /// Whether sizes and pairs are the small ones.
    pub(crate) quick: bool,
    /// What the daemon writes for a READ.
    pub(crate) fill: Fill,
    /// On what machine.
    pub(crate) machine: Machine,
    /// All runs, in the order in which they were.
    pub(crate) runs: Vec<Run>,
    /// What a reader of the results should know.
    pub(crate) remarks: Vec<String>,
}

impl Results {
    /// None yet.
    pub(crate) fn new(quick: bool, fill: Fill, machine: Machine) -> Self {
        Results {
            format: FORMAT,
            quick,
            fill,
            machine,
            runs: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Writes them to a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&part, path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Reads them from a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is of another format.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let results: Results =
            serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?;
        ensure!(
            results.format == FORMAT,
            "{} has format {}, not {FORMAT}",
            path.display(),
            results.format
        );
        Ok(results)
    }

    /// How many pairs there were.
    pub(crate) fn pairs(&self) -> u32 {
        let last = self.runs.iter().map(|run| run.pair).max();
        last.map_or(0, |last| last + 1)
    }

    /// The runs of a scenario on one subject in one mode.
    pub(crate) fn of<'a>(
        &'a self,
        scenario: Scenario,
        subject: Subject,
        mode: &'a Mode,
    ) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| {
            run.scenario == scenario && run.subject == subject && run.mode == *mode
        })
    }

    /// One figure of these runs, pair by pair; of a run that did not end well there is none.
    pub(crate) fn figure(
        &self,
        scenario: Scenario,
        subject: Subject,
        mode: &Mode,
        name: &str,
    ) -> Vec<Option<f64>> {
        let mut values = vec![None; usize::try_from(self.pairs()).unwrap_or(0)];
        for run in self.of(scenario, subject, mode) {
            let place = usize::try_from(run.pair).ok();
            if let Some(value) = place.and_then(|place| values.get_mut(place)) {
                *value = run.figures.get(name).copied();
            }
        }
        values
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn run(scenario: Scenario, pair: u32, subject: Subject, figures: &[(&str, f64)]) -> Run {
        let figures = figures
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        Run {
            scenario,
            pair,
            subject,
            mode: Mode::classic(),
            end: End::Done,
            figures: figures.collect(),
            times: None,
            at: 0.5,
        }
    }

    /// A small session in which there is one of everything.
    pub(crate) fn fixture() -> Results {
        use Scenario::*;
        use Subject::*;
        let mut results = Results::new(true, Fill::Window(65536), Machine::default());
        for (pair, ours) in [(0, 20.0), (1, 15.0), (2, 25.0)] {
            results.runs.push(run(S1, pair, C, &[("mb_s", 10.0)]));
            results.runs.push(run(S1, pair, Ours, &[("mb_s", ours)]));
            results.runs.push(run(S1, pair, Limit, &[("mb_s", 100.0)]));
        }
        for (pair, p99) in [(0, 100.0), (1, 200.0)] {
            let theirs = [("p50_us", 50.0), ("p99_us", p99)];
            results.runs.push(run(S2, pair, C, &theirs));
            results
                .runs
                .push(run(S2, pair, Ours, &[("p50_us", 100.0), ("p99_us", 300.0)]));
        }
        for (subject, growth) in [(C, 250.0), (Ours, 1.0)] {
            for pair in 0..2 {
                results
                    .runs
                    .push(run(S8, pair, subject, &[("poll_growth", growth)]));
            }
        }
        results.runs.push(run(S10, 0, Ours, &[("s", 2.0)]));
        let mut hangs = run(S10, 0, C, &[]);
        hangs.end = End::Hangs(20);
        results.runs.push(hangs);
        let mut refused = run(S1, 0, Ours, &[]);
        refused.mode = "buffered".parse().unwrap();
        refused.end = End::NotSupported("fill buffered".to_owned());
        results.runs.push(refused);
        results.runs[0].times = Some(Distribution {
            counts: vec![(1, 2)],
            ..Distribution::default()
        });
        results.remarks.push("a remark".to_owned());
        results
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let results = fixture();
        results.save(file.path()).unwrap();
        assert_eq!(Results::load(file.path()).unwrap(), results);

        let other = Results {
            format: FORMAT + 1,
            ..results
        };
        other.save(file.path()).unwrap();
        assert!(Results::load(file.path()).is_err());
    }

    #[test]
    fn figures_stand_at_their_pair() {
        let mut results = fixture();
        results
            .runs
            .retain(|run| run.subject == Subject::C || run.pair != 1);
        let of = |subject, mode: &str, name| {
            results.figure(Scenario::S1, subject, &mode.parse().unwrap(), name)
        };
        let ten = Some(10.0);
        assert_eq!(of(Subject::C, "classic", "mb_s"), [ten, ten, ten]);
        assert_eq!(
            of(Subject::Ours, "classic", "mb_s"),
            [Some(20.0), None, Some(25.0)]
        );
        assert_eq!(of(Subject::Ours, "buffered", "mb_s"), [None; 3]);
        assert_eq!(of(Subject::C, "classic", "op_s"), [None; 3]);
    }
}
