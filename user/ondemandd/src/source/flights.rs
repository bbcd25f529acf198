// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ranges of one remote blob that are being fetched, so that none is fetched twice at a time.
//!
//! Several readers that miss the same block send a READ each, unless the kernel was told `fetch`. The
//! first fetches; the others wait, and then find in the cache what it has brought.

use std::ops::Range;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// The ranges of one object that are being fetched.
#[derive(Debug, Default)]
pub struct Flights {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ranges: Vec<Range<u64>>,
    /// How many wait for a range of another.
    waiting: usize,
}

/// A range that is being fetched, until this is dropped.
#[derive(Debug)]
pub struct Flight<'a> {
    flights: &'a Flights,
    range: Range<u64>,
    waited: bool,
}

impl Flights {
    /// Begins to fetch a range; waits while any part of it is being fetched. That takes no longer than the
    /// other fetch, which has a deadline.
    pub fn begin(&self, range: Range<u64>) -> Flight<'_> {
        let mut state = self.lock();
        let mut waited = false;
        while state.ranges.iter().any(|other| overlap(other, &range)) {
            waited = true;
            state.waiting += 1;
            state = self
                .landed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.ranges.push(range.clone());
        drop(state);
        Flight {
            flights: self,
            range,
            waited,
        }
    }

    /// How many wait for a range of another.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Nobody panics while holding the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight<'_> {
    /// Whether another fetch had to be waited for: what it was for may be in the cache now.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.waited
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.flights.lock();
        let mut ranges = state.ranges.iter();
        if let Some(index) = ranges.position(|range| *range == self.range) {
            state.ranges.swap_remove(index);
        }
        drop(state);
        self.flights.landed.notify_all();
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn what_overlaps_waits_and_the_rest_does_not() {
        let flights = Flights::default();
        let first = flights.begin(0..8192);
        assert!(!first.has_waited());
        assert!(!flights.begin(8192..12_288).has_waited(), "a neighbour");
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| tell.send(flights.begin(4096..8192).has_waited()));
            let deadline = Instant::now() + SOON;
            while flights.waiting() == 0 {
                assert!(Instant::now() < deadline, "does not wait");
                thread::yield_now();
            }
            drop(first);
            assert!(told.recv_timeout(SOON).unwrap());
        });
        assert!(!flights.begin(0..u64::MAX).has_waited(), "all have landed");
    }
}
