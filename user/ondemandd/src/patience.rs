// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long a fill waits for space in a full cache.
//!
//! Culling takes a moment, so a fill that finds the cache full tries again for a while. But if
//! nothing can be culled, waiting helps nobody, and it keeps the worker's threads from those who need
//! no space. So the time is granted to all fills together, and not again soon; until then they fail
//! at once.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// How long fills try again.
pub const WAIT: Duration = Duration::from_secs(2);
/// How long after its beginning a wait that did not help may be followed by another.
pub const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// The pause before the first new try; each further one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between tries.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Fills without space are told to the log no more often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The patience of one worker; shared by its threads.
#[derive(Debug)]
pub struct Patience {
    wait: Duration,
    again_after: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the last wait began.
    since: Option<Instant>,
    /// Fills that were given up and not told yet.
    untold: u64,
    told: Option<Instant>,
}

/// The tries of one fill.
#[derive(Debug)]
pub struct Tries<'a> {
    patience: &'a Patience,
    /// The next pause.
    pause: Duration,
    /// The fill has waited.
    waited: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Patience::new(WAIT, AGAIN_AFTER)
    }
}

impl Patience {
    /// Grants `wait` once in `again_after`.
    #[must_use]
    pub fn new(wait: Duration, again_after: Duration) -> Self {
        Patience {
            wait,
            again_after,
            state: Mutex::default(),
        }
    }

    /// For a fill that is about to be tried.
    #[must_use]
    pub fn tries(&self) -> Tries<'_> {
        Tries {
            patience: self,
            pause: FIRST_PAUSE,
            waited: false,
        }
    }

    /// Notes a fill that was given up. The result, if any, is how many there were since the log was
    /// told last, and is to be told now.
    pub fn given_up(&self, now: Instant) -> Option<u64> {
        let mut state = self.lock();
        state.untold = state.untold.saturating_add(1);
        if state.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }

    /// Nobody panics while holding the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tries<'_> {
    /// After the fill has found no space: how long to pause before it is tried again; `None` to give
    /// up.
    pub fn pause(&mut self, now: Instant) -> Option<Duration> {
        let Patience {
            wait, again_after, ..
        } = *self.patience;
        let mut state = self.patience.lock();
        let since = match state.since {
            Some(since) if now < since + again_after => since,
            _ => now,
        };
        state.since = Some(since);
        let left = (since + wait).checked_duration_since(now)?;
        if left.is_zero() {
            return None;
        }
        let pause = self.pause.min(left);
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        self.waited = true;
        Some(pause)
    }

    /// The fill went through. If it had to wait, waiting helps, and is granted anew.
    pub fn done(self) {
        if self.waited {
            self.patience.lock().since = None;
        }
    }

    /// Whether the fill has waited.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries until it is given up; how long that took.
    fn give_up(patience: &Patience, start: Instant) -> Duration {
        let mut now = start;
        let mut tries = patience.tries();
        let mut count = 0;
        while let Some(pause) = tries.pause(now) {
            assert!(!pause.is_zero() && pause <= LONGEST_PAUSE);
            now += pause;
            count += 1;
            assert!(count < 100, "a few tries");
        }
        now - start
    }

    #[test]
    fn all_fills_together_wait_once() {
        let patience = Patience::default();
        let start = Instant::now();
        assert_eq!(give_up(&patience, start), WAIT);
        assert_eq!(
            give_up(&patience, start + WAIT / 2),
            WAIT / 2,
            "one that came later"
        );
        assert_eq!(give_up(&patience, start + WAIT), Duration::ZERO);
        let almost = start + AGAIN_AFTER - Duration::from_millis(1);
        assert_eq!(give_up(&patience, almost), Duration::ZERO);
        assert_eq!(give_up(&patience, start + AGAIN_AFTER), WAIT);
    }

    #[test]
    fn waiting_that_helps_is_granted_anew() {
        let patience = Patience::default();
        let start = Instant::now();
        let mut tries = patience.tries();
        tries.pause(start).unwrap();
        assert!(tries.has_waited());
        tries.done();
        // A fill that found space at once says nothing about a full cache.
        patience.tries().done();
        let later = start + WAIT * 2;
        assert_eq!(give_up(&patience, later), WAIT);
        patience.tries().done();
        assert_eq!(give_up(&patience, later + WAIT), Duration::ZERO);
    }

    #[test]
    fn the_log_is_told_now_and_then() {
        let patience = Patience::default();
        let start = Instant::now();
        assert_eq!(patience.given_up(start), Some(1));
        for _ in 0..5 {
            assert_eq!(patience.given_up(start + TELL_EVERY / 2), None);
        }
        assert_eq!(patience.given_up(start + TELL_EVERY), Some(6));
    }
}
