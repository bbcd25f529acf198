// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much of a deadline is used up, without a clock: times are given to it.

use std::fmt;
use std::time::Duration;

use crate::stretch;
use crate::MAX_FACTOR;

/// So often the machine is looked at before a deadline passes, if it is not slow.
const LOOKS: u32 = 8;

/// No more than so much of a wait is one part: what the machine is like at its end is held to be true
/// for all of it.
const LONGEST_PART: Duration = Duration::from_secs(5);

/// No less, for a look takes a part of a tenth of a second itself.
const SHORTEST_PART: Duration = Duration::from_millis(250);

/// The parts of a wait, each counted by the speed that the machine had.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    /// What was asked for.
    allowed: Duration,
    /// The same on this machine at its best.
    budget: Duration,
    /// What of that is used up.
    spent: Duration,
    /// How long the wait has taken, by the clock.
    wall: Duration,
}

impl Count {
    /// Of so much time, on a machine that has so many percent of the reference's time for the same.
    pub(crate) fn new(allowed: Duration, percent: u32) -> Self {
        Count {
            allowed,
            budget: stretch(allowed, percent),
            spent: Duration::ZERO,
            wall: Duration::ZERO,
        }
    }

    pub(crate) fn passed(&self) -> bool {
        self.spent >= self.budget || self.wall >= self.allowed * MAX_FACTOR
    }

    /// How long the next part is.
    pub(crate) fn next_look(&self) -> Duration {
        let part = (self.budget / LOOKS).clamp(SHORTEST_PART, LONGEST_PART);
        let left = self.budget.saturating_sub(self.spent);
        // On a slow machine little of a part is counted, and what is left would be halved for ever.
        let least = (self.budget / (4 * LOOKS)).max(Duration::from_millis(1));
        part.min(left.max(least))
    }

    /// Adds a part that has taken so long, on a machine that is so slow at its end: in percent, 100 at
    /// its best.
    ///
    /// The waiting process may have been stopped, with the machine or by it, and a part then takes much longer
    /// than it should. No more than twice its length is counted: nobody else got on meanwhile, either.
    pub(crate) fn add(&mut self, took: Duration, slowness: u32) {
        let counted = took.min(self.next_look() * 2);
        self.spent += counted * 100 / slowness.max(100);
    }

    /// Tells how long all has taken by the clock.
    pub(crate) fn limit(&mut self, wall: Duration) {
        self.wall = wall;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = self.allowed.as_secs_f64();
        write!(f, "{allowed} s")?;
        let taken = self.budget.max(self.wall).as_secs_f64();
        if taken > allowed * 1.05 {
            write!(f, " x {:.1}", taken / allowed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_secs(15);

    /// Waits on a machine that is as slow as `slowness` says at each time; returns how long.
    fn wait(percent: u32, slowness: impl Fn(Duration) -> u32) -> (Duration, Count) {
        let mut count = Count::new(ALLOWED, percent);
        let mut clock = Duration::ZERO;
        while !count.passed() {
            let part = count.next_look();
            assert!(!part.is_zero(), "{count:?}");
            clock += part;
            assert!(clock < ALLOWED * 100, "{count:?}");
            count.add(part, slowness(clock));
            count.limit(clock);
        }
        (clock, count)
    }

    /// Whether a wait took as long as it should, and no more beyond than its last part.
    fn near(took: Duration, expected: Duration) -> bool {
        (expected..expected * 21 / 20).contains(&took)
    }

    #[test]
    fn the_reference_has_what_was_asked_for() {
        let (took, count) = wait(100, |_| 100);
        assert_eq!(took, ALLOWED);
        assert_eq!(count.to_string(), "15 s");
    }

    #[test]
    fn a_fast_machine_has_no_less() {
        assert_eq!(wait(100, |_| 10).0, ALLOWED);
    }

    #[test]
    fn a_slow_machine_has_more() {
        let (took, count) = wait(240, |_| 100);
        assert_eq!(took, ALLOWED * 240 / 100);
        assert_eq!(count.to_string(), "15 s x 2.4");
    }

    #[test]
    fn a_busy_machine_has_more() {
        let (took, count) = wait(100, |_| 300);
        assert!(near(took, ALLOWED * 3), "{took:?}");
        assert_eq!(count.to_string(), "15 s x 3.0");
        let (took, _) = wait(200, |_| 300);
        assert!(near(took, ALLOWED * 6), "{took:?}");
    }

    #[test]
    fn one_that_was_busy_for_a_while_has_more_though_it_is_quiet_at_the_end() {
        let ten = Duration::from_secs(10);
        let (took, _) = wait(100, |now| if now <= ten { 400 } else { 100 });
        // The ten seconds, of which 7.5 are not counted.
        let expected = ALLOWED + Duration::from_millis(7500);
        assert!(took >= ALLOWED + Duration::from_secs(6), "{took:?}");
        assert!(took <= expected + Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn every_wait_ends() {
        // With the last part.
        let limits = ALLOWED * MAX_FACTOR..=ALLOWED * MAX_FACTOR + LONGEST_PART;
        for (percent, slowness) in [(100, u32::MAX), (MAX_FACTOR * 100, 2000)] {
            let (took, _) = wait(percent, |_| slowness);
            assert!(limits.contains(&took), "{took:?}");
        }
        let (_, count) = wait(100, |_| 1_000_000);
        assert!(count.to_string().starts_with("15 s x 20."), "{count}");
    }

    #[test]
    fn a_stopped_process_has_not_waited_all_the_time() {
        let mut count = Count::new(ALLOWED, 100);
        count.add(Duration::from_secs(3600), 100);
        assert!(!count.passed());
        // Again and again is another matter.
        for _ in 0..LOOKS {
            count.add(Duration::from_secs(3600), 100);
        }
        assert!(count.passed());
    }

    #[test]
    fn a_stop_does_not_undo_the_limit() {
        let mut count = Count::new(ALLOWED, 100);
        count.add(Duration::from_secs(3600), 100);
        count.limit(Duration::from_secs(3600));
        assert!(count.passed());
    }

    #[test]
    fn none_has_passed_at_once() {
        assert!(Count::new(Duration::ZERO, 2000).passed());
    }
}
