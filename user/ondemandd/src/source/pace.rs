// SPDX-License-Identifier: MIT OR Apache-2.0

//! How many bytes a second a source may bring.
//!
//! OpenDAL's ThrottleLayer holds back writes only, so it is of no use here. Each request waits for its
//! turn before it is sent, for as long as what was asked before takes at the rate; a short burst is
//! free, so that a reader of a few blocks does not wait at all.
//!
//! What is read ahead takes its turn only when nobody would wait for his: at most one part of it is between a
//! reader and his data.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// What may be asked for at once after a rest.
const BURST: Duration = Duration::from_millis(100);

/// The pace of one source; shared by its requests.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: NonZeroU64,
    /// When all that was asked for until now has come, at the rate.
    paid_until: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: NonZeroU64) -> Self {
        Pace {
            bytes_per_second,
            paid_until: Mutex::new(None),
        }
    }

    /// Notes that `bytes` are about to be asked for; how long to wait before that.
    pub(crate) fn turn(&self, bytes: u64, now: Instant) -> Duration {
        let mut paid_until = self.lock();
        self.pay(&mut paid_until, bytes, now)
    }

    /// The same if there is nothing to wait for; otherwise nothing is noted, and the error is when to try again.
    pub(crate) fn turn_if_free(&self, bytes: u64, now: Instant) -> Result<(), Instant> {
        let mut paid_until = self.lock();
        match paid_until.and_then(|paid| paid.checked_sub(BURST)) {
            Some(free) if free > now => Err(free),
            _ => {
                self.pay(&mut paid_until, bytes, now);
                Ok(())
            }
        }
    }

    fn pay(&self, paid_until: &mut Option<Instant>, bytes: u64, now: Instant) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let start = paid_until.map_or(now, |paid| paid.max(now));
        // So far ahead that it makes no difference.
        *paid_until = start.checked_add(cost).or(Some(start));
        start.duration_since(now).saturating_sub(BURST)
    }

    /// Nobody panics while holding the lock.
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.paid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(rate: u64) -> Pace {
        Pace::new(NonZeroU64::new(rate).unwrap())
    }

    #[test]
    fn a_burst_is_free_and_the_rest_waits() {
        let pace = pace(1000);
        let now = Instant::now();
        assert_eq!(pace.turn(100, now), Duration::ZERO);
        assert_eq!(pace.turn(100, now), Duration::ZERO, "within the burst");
        assert_eq!(pace.turn(1000, now), Duration::from_millis(100));
        assert_eq!(pace.turn(1, now), Duration::from_millis(1100));
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.turn(1, later), Duration::ZERO, "a rest is forgotten");
    }

    #[test]
    fn what_is_read_ahead_takes_turns_that_nobody_wants() {
        let pace = pace(1000);
        let now = Instant::now();
        assert_eq!(pace.turn_if_free(200, now), Ok(()));
        let free = now + Duration::from_millis(100);
        assert_eq!(pace.turn_if_free(200, now), Err(free));
        assert_eq!(pace.turn(0, now), Duration::from_millis(100), "not noted");
        assert_eq!(pace.turn_if_free(1000, free), Ok(()));
        assert_eq!(pace.turn(0, free), Duration::from_secs(1), "noted");
    }

    proptest! {
        #[test]
        fn the_rate_holds(rate in 1_u64..1 << 40, asks in prop::collection::vec(0_u64..1 << 32, 1..50)) {
            let pace = pace(rate);
            let start = Instant::now();
            let mut now = start;
            let mut before_last = 0_u128;
            for ask in &asks {
                now += pace.turn(*ask, now);
                let allowed = (now - start + BURST).as_nanos() * u128::from(rate) / 1_000_000_000;
                // Each turn's time is rounded down to a nanosecond.
                let slack = u128::from(rate) * 50 / 1_000_000_000 + 1;
                prop_assert!(before_last <= allowed + slack, "{before_last} > {allowed}");
                before_last += u128::from(*ask);
            }
        }
    }
}
