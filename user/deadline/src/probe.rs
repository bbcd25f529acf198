// SPDX-License-Identifier: MIT OR Apache-2.0

//! How slow the machine is: the same small work, again and again.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::MAX_FACTOR;

/// For how long is measured: several time slices of the processes that share the processor, some milliseconds each.
const LENGTH: Duration = Duration::from_millis(50);

/// As many units at least, on a machine where [`LENGTH`] is over sooner.
const UNITS: u32 = 16;

/// A measurement is as good as new for so long: many threads may wait at a time.
const FRESH: Duration = Duration::from_millis(200);

/// A machine that is called busy is so by more than this, in percent: caches and timers make some units
/// slower than the best one on every machine.
const NOISE: u64 = 125;

/// What this process has measured.
#[derive(Debug)]
struct Probe {
    /// The shortest time that a unit took.
    best: Duration,
    /// The last result, and when it was.
    last: Option<(Instant, u32)>,
}

/// How much slower than at its best this process runs now, in percent: 100 if nobody else wants its
/// processor, 300 if it has a third of one. The range is 100 to 100 times [`MAX_FACTOR`].
///
/// A unit of work is some hashing and a few cheap system calls. The best unit is short enough to find a
/// moment without others on any machine; the mean of many has what others take. So a process that has
/// only known a busy machine knows that as well. Takes 50 ms, a few units more where a unit takes long,
/// and nothing if it was measured a moment ago.
#[must_use]
pub fn slowness() -> u32 {
    static PROBE: Mutex<Probe> = Mutex::new(Probe {
        best: Duration::MAX,
        last: None,
    });
    // Others who ask meanwhile are to have the same answer.
    let mut probe = PROBE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, slowness)) = probe.last.filter(|(when, _)| when.elapsed() < FRESH) {
        return slowness;
    }
    let begun = Instant::now();
    let (mut units, mut before) = (0, begun);
    let all = loop {
        unit();
        units += 1;
        let now = Instant::now();
        probe.best = probe.best.min(now - before);
        before = now;
        if now - begun >= LENGTH && units >= UNITS {
            break now - begun;
        }
    };
    let slowness = compare(all, units, probe.best);
    probe.last = Some((before, slowness));
    slowness
}

/// The mean of so many units against the best one.
fn compare(all: Duration, units: u32, best: Duration) -> u32 {
    let mean = all / units.max(1);
    let most = u128::from(MAX_FACTOR) * 100;
    let percent = mean.as_nanos() * 100 / best.as_nanos().max(1);
    if percent <= u128::from(NOISE) {
        return 100;
    }
    u32::try_from(percent.min(most)).unwrap_or(MAX_FACTOR * 100)
}

/// Some microseconds of work, with an emulated processor some hundreds.
fn unit() {
    const CALLS: u32 = 4;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in 0..4096_u64 {
        hash = (hash ^ black_box(byte & 0xff)).wrapping_mul(0x0100_0000_01b3);
    }
    black_box(hash);
    for _ in 0..CALLS {
        // A system call each time.
        black_box(std::process::id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Duration = Duration::from_micros(10);

    #[test]
    fn the_mean_is_held_against_the_best() {
        assert_eq!(compare(UNIT * 1000, 1000, UNIT), 100);
        assert_eq!(compare(UNIT * 3000, 1000, UNIT), 300);
        assert_eq!(compare(UNIT * 2400, 1000, UNIT), 240);
    }

    #[test]
    fn noise_is_not_slowness() {
        assert_eq!(compare(UNIT * 1250, 1000, UNIT), 100);
        assert_eq!(compare(UNIT * 1260, 1000, UNIT), 126);
    }

    #[test]
    fn the_result_has_limits() {
        assert_eq!(compare(UNIT * 900, 1000, UNIT), 100);
        assert_eq!(compare(Duration::from_secs(3600), 1, UNIT), 2000);
        assert_eq!(compare(UNIT, 0, Duration::ZERO), 2000);
    }

    #[test]
    fn it_is_measured_once_for_all_who_ask_at_a_time() {
        let first = slowness();
        assert!((100..=MAX_FACTOR * 100).contains(&first));
        let start = Instant::now();
        let again: Vec<u32> = (0..1000).map(|_| slowness()).collect();
        // A thousand measurements would take a minute.
        let measured = start.elapsed().as_nanos() / LENGTH.as_nanos();
        assert!(measured < 500, "{measured} measurements of 1000, {again:?}");
    }
}
