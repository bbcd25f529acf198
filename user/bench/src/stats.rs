// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a few samples come to: median, range, ratios, and whether they are too noisy to say
//! anything.

use serde::Deserialize;
use serde::Serialize;

/// A figure is noisy if the C module's own runs differ by more than this part of their median.
pub(crate) const NOISY: f64 = 0.25;

/// Samples, from the smallest to the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Range {
    /// Half of them are no larger.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Range {
    /// The range of `samples`; none without a sample, or with one that is no finite number.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        if samples.iter().any(|sample| !sample.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[half],
            _ => f64::midpoint(*sorted.get(half.checked_sub(1)?)?, sorted[half]),
        };
        Some(Range {
            median,
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }

    /// How far the samples lie apart, as a part of their median.
    pub(crate) fn spread(&self) -> f64 {
        if self.max == self.min {
            return 0.0;
        }
        (self.max - self.min) / self.median.abs()
    }
}

/// `ours` over `theirs`, pair by pair; a pair that lacks one of them is left out.
pub(crate) fn ratios(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .filter_map(|(ours, theirs)| ratio((*ours)?, (*theirs)?))
        .collect()
}

/// Each sample over the one of the pair before: what the ratio of a thing to itself looks like.
pub(crate) fn control(samples: &[Option<f64>]) -> Vec<f64> {
    let there: Vec<f64> = samples.iter().copied().flatten().collect();
    there
        .windows(2)
        .filter_map(|two| ratio(two[1], two[0]))
        .collect()
}

/// `over / under`, if that is a number.
fn ratio(over: f64, under: f64) -> Option<f64> {
    let ratio = over / under;
    ratio.is_finite().then_some(ratio)
}

/// Whether a thing can be compared with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noise {
    /// Its samples lie close together.
    Quiet,
    /// They lie too far apart.
    Noisy,
    /// There are fewer than two.
    Unknown,
}

impl Noise {
    /// What the samples of one thing show.
    pub(crate) fn of(samples: &[Option<f64>]) -> Self {
        let there: Vec<f64> = samples.iter().copied().flatten().collect();
        match Range::of(&there) {
            Some(_) if there.len() < 2 => Noise::Unknown,
            Some(range) if range.spread() > NOISY => Noise::Noisy,
            Some(_) => Noise::Quiet,
            None => Noise::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(samples: &[f64]) -> (f64, f64, f64) {
        let Range { median, min, max } = Range::of(samples).unwrap();
        (median, min, max)
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(range(&[3.0]), (3.0, 3.0, 3.0));
        assert_eq!(range(&[4.0, 1.0]), (2.5, 1.0, 4.0));
        assert_eq!(range(&[9.0, 1.0, 2.0]), (2.0, 1.0, 9.0));
        assert_eq!(range(&[10.0, 9.0, 1.0, 2.0]), (5.5, 1.0, 10.0));
        assert_eq!(Range::of(&[]), None);
        assert_eq!(Range::of(&[1.0, f64::NAN]), None);
        assert_eq!(Range::of(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn ratios_are_of_pairs() {
        let ours = [Some(2.0), None, Some(9.0), Some(1.0), Some(1.0)];
        let theirs = [Some(1.0), Some(1.0), Some(3.0), None, Some(0.0)];
        assert_eq!(ratios(&ours, &theirs), [2.0, 3.0]);
    }

    #[test]
    fn the_control_compares_neighbours() {
        assert_eq!(control(&[Some(1.0), Some(2.0), Some(1.0)]), [2.0, 0.5]);
        // A pair without a figure is no neighbour.
        assert_eq!(control(&[Some(1.0), None, Some(4.0)]), [4.0]);
        assert!(control(&[Some(1.0)]).is_empty());
    }

    #[test]
    fn noise_is_a_spread_of_more_than_a_quarter() {
        let of = |samples: &[f64]| {
            let samples: Vec<_> = samples.iter().map(|sample| Some(*sample)).collect();
            Noise::of(&samples)
        };
        for quiet in [
            &[100.0, 110.0, 125.0, 100.0, 120.0][..],
            &[100.0, 125.0, 100.0],
            &[0.0, 0.0],
        ] {
            assert_eq!(of(quiet), Noise::Quiet, "{quiet:?}");
        }
        for noisy in [
            &[100.0, 126.0, 100.0][..],
            &[100.0, 74.0, 100.0],
            &[0.0, 0.0, 1.0],
        ] {
            assert_eq!(of(noisy), Noise::Noisy, "{noisy:?}");
        }
        // One sample says nothing about noise, none neither.
        assert_eq!(of(&[100.0]), Noise::Unknown);
        assert_eq!(Noise::of(&[None, Some(1.0), None]), Noise::Unknown);
        assert_eq!(Noise::of(&[None, None]), Noise::Unknown);
    }
}
