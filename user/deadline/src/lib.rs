// SPDX-License-Identifier: MIT OR Apache-2.0

//! Deadlines that follow the measured speed of the machine.
//!
//! A test waits for what should have happened by now, and fails when it has not. How long that may
//! take is a time on a machine of the reference's speed. Two measurements say what it is on this one:
//!
//! - [`VARIABLE`] in the environment: what a reference machine does in 1 s takes this one so many
//!   hundredths of a second. In a guest `scripts/vm/guest-init` takes it from the time of the boot.
//! - [`slowness`]: how much slower than at its best this process runs now, because others have the
//!   processors. A [`Deadline`] measures it again and again while it waits, and counts a second on a
//!   machine that is three times as slow as a third of one.
//!
//! A machine that is faster than the reference shortens no deadline. Each wait ends: no time becomes
//! longer than [`MAX_FACTOR`] times what was asked for.
//!
//! Not for times that are tested themselves, such as the module's `timeout SECONDS`, and not for
//! products: nobody but tests should wait longer because a machine is slow.

#![forbid(unsafe_code)]

mod count;
mod probe;

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use count::Count;
pub use probe::slowness;

/// The environment variable with the machine's slowness: an integer, in percent, 100 for the reference
/// machine. What is no number counts as 100; the range is 100 to 100 times [`MAX_FACTOR`].
pub const VARIABLE: &str = "ONDEMAND_TIMEOUT_PERCENT";

/// By how much a time is made longer at most, whatever is measured.
pub const MAX_FACTOR: u32 = 20;

/// What [`VARIABLE`] says, in percent.
#[must_use]
pub fn percent() -> u32 {
    static PERCENT: OnceLock<u32> = OnceLock::new();
    *PERCENT.get_or_init(|| parse(std::env::var(VARIABLE).ok().as_deref()))
}

fn parse(text: Option<&str>) -> u32 {
    let percent = text.and_then(|text| text.trim().parse().ok());
    within_limits(percent.unwrap_or(100))
}

fn within_limits(percent: u64) -> u32 {
    let most = MAX_FACTOR * 100;
    u32::try_from(percent).unwrap_or(most).clamp(100, most)
}

/// What [`VARIABLE`] says times what [`slowness`] does, in percent: for the environment of a process
/// that is about to be started.
#[must_use]
pub fn percent_now() -> u32 {
    within_limits(u64::from(percent()) * u64::from(slowness()) / 100)
}

/// A time as it is on this machine now: for a wait that cannot be looked after, such as a socket's
/// timeout.
#[must_use]
pub fn scaled(time: Duration) -> Duration {
    stretch(time, percent_now())
}

fn stretch(time: Duration, percent: u32) -> Duration {
    time * percent / 100
}

/// The time that `elapsed` is longer than, if it is: `allowed` as it is on this machine now. For who
/// measures a time by other means than a [`Deadline`]. Cheap until then.
#[must_use]
pub fn overdue(elapsed: Duration, allowed: Duration) -> Option<Duration> {
    if elapsed <= stretch(allowed, percent()) {
        return None;
    }
    Some(scaled(allowed)).filter(|limit| elapsed > *limit)
}

/// The end of a wait.
///
/// A wait asks [`Deadline::passed`] first, then looks at what it waits for, and gives up if the
/// deadline had passed before: so nothing is missed that happened in time.
///
/// ```
/// # use std::time::Duration;
/// # use ondemand_deadline::Deadline;
/// # let ready = || true;
/// let mut deadline = Deadline::after(Duration::from_secs(15));
/// loop {
///     let passed = deadline.passed();
///     if ready() {
///         break;
///     }
///     assert!(!passed, "not within {deadline}");
///     std::thread::sleep(Duration::from_millis(2));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Deadline {
    count: Count,
    begun: Instant,
    looked: Instant,
}

impl Deadline {
    /// A deadline in so long on the reference machine. With zero it has passed.
    #[must_use]
    pub fn after(allowed: Duration) -> Self {
        let now = Instant::now();
        Deadline {
            count: Count::new(allowed, percent()),
            begun: now,
            looked: now,
        }
    }

    /// Whether it has passed; once it has, it stays so. Now and then this measures the machine's speed,
    /// which takes up to a tenth of a second.
    pub fn passed(&mut self) -> bool {
        let since = self.looked.elapsed();
        if !self.count.passed() && since >= self.count.next_look() {
            // The measurement itself is no part of the wait.
            self.count.add(since, slowness());
            self.count.limit(self.begun.elapsed());
            self.looked = Instant::now();
        }
        self.count.passed()
    }

    /// For how long may be waited before [`Deadline::passed`] is asked again: zero once it has passed,
    /// before that not zero. This may be less than what is left in all.
    pub fn remaining(&mut self) -> Duration {
        if self.passed() {
            return Duration::ZERO;
        }
        let left = self.count.next_look().saturating_sub(self.looked.elapsed());
        left.max(Duration::from_millis(1))
    }
}

/// What was allowed in fact: `15 s`, or `15 s x 2.4` if the machine was slow. Before the deadline has
/// passed, what is sure to be allowed.
impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.count.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_kept_within_limits() {
        for (text, percent) in [
            (None, 100),
            (Some(""), 100),
            (Some("fast"), 100),
            (Some("-5"), 100),
            (Some("0"), 100),
            (Some("99"), 100),
            (Some("100"), 100),
            (Some("250\n"), 250),
            (Some("2000"), 2000),
            (Some("2001"), 2000),
            (Some("99999999999"), 2000),
        ] {
            assert_eq!(parse(text), percent, "{text:?}");
        }
    }

    #[test]
    fn a_time_is_stretched_by_percent() {
        let time = Duration::from_millis(1500);
        assert_eq!(stretch(time, 100), time);
        assert_eq!(stretch(time, 250), Duration::from_millis(3750));
    }

    #[test]
    fn what_took_less_than_is_allowed_is_never_overdue() {
        let allowed = Duration::from_secs(1);
        assert_eq!(overdue(allowed, allowed), None);
        let longest = allowed * MAX_FACTOR;
        let limit = overdue(longest + Duration::from_millis(1), allowed).unwrap();
        assert!(limit >= allowed && limit <= longest, "{limit:?}");
    }

    #[test]
    fn a_deadline_passes_and_stays_passed() {
        let mut none = Deadline::after(Duration::ZERO);
        assert!(none.passed());
        assert_eq!(none.remaining(), Duration::ZERO);

        let allowed = Duration::from_millis(30);
        let start = Instant::now();
        let mut deadline = Deadline::after(allowed);
        assert!(!deadline.remaining().is_zero());
        while !deadline.passed() {
            std::thread::sleep(deadline.remaining());
        }
        assert!(start.elapsed() >= allowed);
        assert!(deadline.passed() && deadline.remaining().is_zero());
    }
}
