// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long to leave a cache alone that wants culling and has nothing to cull.
//!
//! `EPOLLOUT` stays as long as the cache is too full, so waiting for it again would spin.

use std::time::Duration;
use std::time::Instant;

/// The first pause; each further one is twice as long.
pub(crate) const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// The pause between walks that found nothing.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    /// How long the last one was, and when it ends.
    last: Option<(Duration, Instant)>,
    /// What was known of the world when it began.
    seen: u64,
}

impl Pause {
    /// Whether to walk now. `seen` is any number that changes when a walk may find more.
    pub(crate) fn is_over(&mut self, seen: u64, now: Instant) -> bool {
        match self.last {
            Some((_, until)) if self.seen == seen => until <= now,
            _ => {
                self.seen = seen;
                self.last = None;
                true
            }
        }
    }

    /// Begins a pause after a walk that found nothing.
    pub(crate) fn begin(&mut self, now: Instant) {
        let pause = match self.last {
            Some((last, _)) => last.saturating_mul(2).min(LONGEST),
            None => FIRST,
        };
        self.last = Some((pause, now + pause));
    }

    /// There is something to cull again, or no need to.
    pub(crate) fn end(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_something_changes() {
        let mut pause = Pause::default();
        let mut now = Instant::now();
        assert!(pause.is_over(0, now));
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            pause.begin(now);
            now += Duration::from_secs(expected) - Duration::from_millis(1);
            assert!(!pause.is_over(0, now), "{expected}");
            now += Duration::from_millis(1);
            assert!(pause.is_over(0, now), "{expected}");
        }
        pause.begin(now);
        assert!(pause.is_over(1, now), "something has changed");
        pause.begin(now);
        assert!(!pause.is_over(1, now));
        assert!(pause.is_over(1, now + FIRST));
        pause.end();
        assert!(pause.is_over(1, now));
    }
}
