// SPDX-License-Identifier: MIT OR Apache-2.0

//! The rows of the table: each figure in each mode of this module, beside the C module.

use std::collections::BTreeSet;

use crate::mode::Mode;
use crate::results::End;
use crate::results::Results;
use crate::scenario::Better;
use crate::scenario::Figure;
use crate::scenario::Scenario;
use crate::stats::control;
use crate::stats::ratios;
use crate::stats::Noise;
use crate::stats::Range;
use crate::subject::Subject;

/// A figure in a mode.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Of which scenario.
    pub(super) scenario: Scenario,
    /// What.
    pub(super) figure: Figure,
    /// In which mode of this module.
    pub(super) mode: Mode,
    /// What the C module came to.
    pub(super) c: Option<Range>,
    /// What this module came to.
    pub(super) ours: Option<Range>,
    /// This module over the C module, over the pairs.
    pub(super) ratio: Option<Range>,
    /// The C module over itself, each pair over the one before.
    pub(super) control: Option<Range>,
    /// What the C module's own runs show.
    pub(super) noise: Noise,
    /// The C module over the limit; the median.
    pub(super) c_of_limit: Option<f64>,
    /// This module over the limit; the median.
    pub(super) ours_of_limit: Option<f64>,
    /// How runs ended that did not end well.
    pub(super) ends: Vec<String>,
}

impl Row {
    /// The row of a figure in a mode; none if the scenario was not run in it.
    fn of(results: &Results, scenario: Scenario, figure: Figure, mode: &Mode) -> Option<Self> {
        let classic = Mode::classic();
        let values = |subject, mode| results.figure(scenario, subject, mode, figure.name);
        let c = values(Subject::C, &classic);
        let ours = values(Subject::Ours, mode);
        let limit = values(Subject::Limit, &classic);
        let range = |samples: &[Option<f64>]| {
            let there: Vec<f64> = samples.iter().copied().flatten().collect();
            Range::of(&there)
        };
        let median = |ratios: Vec<f64>| Some(Range::of(&ratios)?.median);
        let mut ends = ends(results, scenario, Subject::C, &classic);
        ends.extend(self::ends(results, scenario, Subject::Ours, mode));
        let row = Row {
            scenario,
            figure,
            mode: mode.clone(),
            c: range(&c),
            ours: range(&ours),
            ratio: Range::of(&ratios(&ours, &c)),
            control: Range::of(&control(&c)),
            noise: Noise::of(&c),
            c_of_limit: median(ratios(&c, &limit)),
            ours_of_limit: median(ratios(&ours, &limit)),
            ends,
        };
        (row.c.is_some() || row.ours.is_some() || !row.ends.is_empty()).then_some(row)
    }

    /// What every pair says, if they agree; nothing if what they say lies within the noise. Noisy
    /// figures are believed only beyond everything that the C module shows of itself.
    pub(super) fn verdict(&self) -> Option<&'static str> {
        let Range { min, max, .. } = self.ratio?;
        let (low, high) = match self.noise {
            Noise::Quiet => (1.0, 1.0),
            Noise::Noisy => {
                let control = self.control?;
                let both = [
                    control.min,
                    control.max,
                    1.0 / control.min,
                    1.0 / control.max,
                ];
                (
                    both.into_iter().fold(1.0, f64::min),
                    both.into_iter().fold(1.0, f64::max),
                )
            }
            Noise::Unknown => return None,
        };
        let (more, less) = match self.figure.better {
            Better::Higher => ("better", "worse"),
            Better::Lower => ("worse", "better"),
        };
        if min > high {
            Some(more)
        } else if max < low {
            Some(less)
        } else {
            None
        }
    }

    /// Whether there is too much noise for it to say anything.
    pub(super) fn says_nothing(&self) -> bool {
        self.noise != Noise::Quiet && self.verdict().is_none()
    }

    /// How many times better this module is: the ratio, or its inverse where less is better.
    pub(super) fn gain(&self) -> Option<Range> {
        let ratio = self.ratio?;
        let gain = match self.figure.better {
            Better::Higher => ratio,
            Better::Lower => Range {
                median: 1.0 / ratio.median,
                min: 1.0 / ratio.max,
                max: 1.0 / ratio.min,
            },
        };
        let all = [gain.min, gain.median, gain.max];
        all.iter()
            .all(|part| part.is_finite() && *part > 0.0)
            .then_some(gain)
    }

    /// What it is called in a plot or a sentence.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.scenario, self.figure.title)
    }
}

/// How runs ended that did not end well: who, how and how often.
fn ends(results: &Results, scenario: Scenario, subject: Subject, mode: &Mode) -> Vec<String> {
    let mut all = Vec::new();
    let mut runs = 0;
    for run in results.of(scenario, subject, mode) {
        runs += 1;
        all.push(match &run.end {
            End::Done => continue,
            End::Hangs(seconds) => format!("{} hangs ({seconds} s)", subject.name()),
            End::NotSupported(_) => "not supported".to_owned(),
            End::Failed(_) => format!("{} FAILED", subject.name()),
        });
    }
    let different: BTreeSet<_> = all.iter().cloned().collect();
    different
        .into_iter()
        .map(|end| {
            let count = all.iter().filter(|one| **one == end).count();
            format!("{end}, {count} of {runs} runs")
        })
        .collect()
}

/// All rows, in the order of the scenarios.
pub(super) fn rows(results: &Results) -> Vec<Row> {
    let mut rows = Vec::new();
    for scenario in Scenario::ALL {
        let ours = results
            .runs
            .iter()
            .filter(|run| run.scenario == scenario && run.subject == Subject::Ours);
        // The classic mode is the first one.
        let modes: BTreeSet<_> = ours.map(|run| run.mode.clone()).collect();
        for figure in scenario.figures() {
            let row = |mode| Row::of(results, scenario, *figure, mode);
            rows.extend(modes.iter().filter_map(row));
        }
    }
    rows
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::results::tests::fixture;

    fn row(rows: &[Row], scenario: Scenario, name: &str, mode: &str) -> Row {
        let mode: Mode = mode.parse().unwrap();
        rows.iter()
            .find(|row| row.scenario == scenario && row.figure.name == name && row.mode == mode)
            .unwrap()
            .clone()
    }

    #[test]
    fn ratios_limits_and_noise_are_of_the_pairs() {
        let rows = rows(&fixture());
        let s1 = row(&rows, Scenario::S1, "mb_s", "classic");
        let ratio = s1.ratio.unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (1.5, 2.0, 2.5));
        assert_eq!((s1.noise, s1.verdict()), (Noise::Quiet, Some("better")));
        assert_eq!((s1.c_of_limit, s1.ours_of_limit), (Some(0.1), Some(0.2)));
        assert_eq!(s1.control.unwrap().max, 1.0);

        // Twice as long is worse.
        let p50 = row(&rows, Scenario::S2, "p50_us", "classic");
        assert_eq!(p50.ratio.unwrap().median, 2.0);
        assert_eq!(
            (p50.verdict(), p50.gain().unwrap().median),
            (Some("worse"), 0.5)
        );
        // The C module's runs are 100 and 200 us.
        let p99 = row(&rows, Scenario::S2, "p99_us", "classic");
        assert_eq!((p99.noise, p99.verdict()), (Noise::Noisy, None));
        assert!(p99.says_nothing() && !s1.says_nothing());
    }

    #[test]
    fn noise_is_believed_only_beyond_the_control() {
        let rows = rows(&fixture());
        let verdict = |ratio: f64| {
            let mut p99 = row(&rows, Scenario::S2, "p99_us", "classic");
            p99.ratio = Range::of(&[ratio]);
            p99.verdict()
        };
        // The C module was twice itself, or half.
        assert_eq!(
            (verdict(2.1), verdict(0.4)),
            (Some("worse"), Some("better"))
        );
        assert_eq!((verdict(1.9), verdict(0.6)), (None, None));
        let mut once = row(&rows, Scenario::S1, "mb_s", "classic");
        once.noise = Noise::Unknown;
        assert!(once.verdict().is_none() && once.says_nothing());
    }

    #[test]
    fn what_does_not_end_is_told() {
        let rows = rows(&fixture());
        let lz4 = row(&rows, Scenario::S10, "s", "classic");
        assert_eq!(lz4.ends, ["C hangs (20 s), 1 of 1 runs"]);
        assert_eq!((lz4.ratio, lz4.c), (None, None));
        assert!(lz4.ours.is_some());
        let refused = row(&rows, Scenario::S1, "mb_s", "buffered");
        assert_eq!(refused.ends, ["not supported, 1 of 1 runs"]);
    }
}
