// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ranges of one remote blob that are being fetched, so that none is fetched twice at a time.
//!
//! Several readers that miss the same block send a READ each, unless the kernel was told `fetch`. The
//! first fetches; the others wait, and then find in the cache what it has brought. So does a READ of what is
//! being read ahead; but that was sent for nobody, so it is waited for only so long. What is read ahead waits
//! for nobody: it leaves out what others fetch, or wait to fetch.

use std::ops::Range;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// The ranges of one object that are being fetched.
#[derive(Debug, Default)]
pub struct Flights {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By what each is removed by.
    flying: Vec<(u64, Purpose, Range<u64>)>,
    /// Those that wait for ranges of others; likewise.
    waiting: Vec<(u64, Range<u64>)>,
    next: u64,
}

/// What a range is fetched for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    Read,
    Ahead,
}

/// A range that is being fetched, until this is dropped.
#[derive(Debug)]
pub struct Flight<'a> {
    flights: &'a Flights,
    number: u64,
    range: Range<u64>,
    waited: bool,
}

impl Flights {
    /// Begins to fetch a range for a READ; waits while any part of it is being fetched. For another READ that
    /// takes no longer than its fetch, which has a deadline; for what is read ahead, no longer than `patience`.
    pub fn begin(&self, range: Range<u64>, patience: Duration) -> Flight<'_> {
        let mut state = self.lock();
        let number = state.number();
        let deadline = Instant::now() + patience;
        let mut waited = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let within = match state.obstacle(&range) {
                None => break,
                Some(Purpose::Ahead) if left.is_zero() => break,
                Some(Purpose::Ahead) => left,
                Some(Purpose::Read) => Duration::MAX,
            };
            if !waited {
                state.waiting.push((number, range.clone()));
                waited = true;
            }
            let (guard, _) = self
                .landed
                .wait_timeout(state, within)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
        }
        state.waiting.retain(|(other, _)| *other != number);
        self.take_off(state, number, Purpose::Read, range, waited)
    }

    /// Begins to read a range ahead, or of it the longest part that nobody fetches or waits for; `None` if there
    /// is none.
    pub fn begin_ahead(&self, range: Range<u64>) -> Option<Flight<'_>> {
        let mut state = self.lock();
        let flying = state.flying.iter().map(|(_, _, range)| range);
        let waiting = state.waiting.iter().map(|(_, range)| range);
        let range = longest_without(range, flying.chain(waiting))?;
        let number = state.number();
        Some(self.take_off(state, number, Purpose::Ahead, range, false))
    }

    /// How many wait for a range of another.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn take_off(
        &self,
        mut state: MutexGuard<'_, State>,
        number: u64,
        purpose: Purpose,
        range: Range<u64>,
        waited: bool,
    ) -> Flight<'_> {
        state.flying.push((number, purpose, range.clone()));
        Flight {
            flights: self,
            number,
            range,
            waited,
        }
    }

    /// Nobody panics while holding the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// What parts of a range are fetched for: a READ, if any is.
    fn obstacle(&self, range: &Range<u64>) -> Option<Purpose> {
        let others = self.flying.iter();
        let mut others = others.filter(|(_, _, other)| overlap(other, range));
        let (_, first, _) = others.next()?;
        match others.all(|(_, purpose, _)| *purpose == Purpose::Ahead) {
            true => Some(*first),
            false => Some(Purpose::Read),
        }
    }
}

impl Flight<'_> {
    /// What is being fetched.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Whether another fetch had to be waited for: what it was for may be in the cache now.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.waited
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.flights.lock();
        state.flying.retain(|(number, ..)| *number != self.number);
        drop(state);
        self.flights.landed.notify_all();
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// The longest part of a range that overlaps none of others.
fn longest_without<'a>(
    range: Range<u64>,
    others: impl Iterator<Item = &'a Range<u64>>,
) -> Option<Range<u64>> {
    let mut parts = vec![range];
    for other in others {
        let around = |part: Range<u64>| {
            let before = part.start..part.end.min(other.start);
            let after = part.start.max(other.end)..part.end;
            match overlap(&part, other) {
                true => [before, after],
                false => [part, 0..0],
            }
        };
        parts = parts.into_iter().flat_map(around).collect();
        parts.retain(|part| !part.is_empty());
    }
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.max_by_key(|part| part.end - part.start)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use ondemand_deadline::scaled;
    use ondemand_deadline::Deadline;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(600);

    /// Waits until somebody waits.
    fn somebody_waits(flights: &Flights) {
        let mut deadline = Deadline::after(SOON);
        while flights.waiting() == 0 {
            assert!(!deadline.passed(), "does not wait");
            thread::yield_now();
        }
    }

    #[test]
    fn what_overlaps_waits_and_the_rest_does_not() {
        let flights = Flights::default();
        let first = flights.begin(0..8192, Duration::ZERO);
        assert!(!first.has_waited());
        let neighbour = flights.begin(8192..12_288, LONG);
        assert!(!neighbour.has_waited());
        drop(neighbour);
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            // A READ is waited for, however little patience there is.
            scope.spawn(|| tell.send(flights.begin(4096..8192, Duration::ZERO).has_waited()));
            somebody_waits(&flights);
            drop(first);
            assert!(told.recv_timeout(scaled(SOON)).unwrap());
        });
        let all = flights.begin(0..u64::MAX, LONG);
        assert!(!all.has_waited(), "all have landed");
    }

    #[test]
    fn what_is_read_ahead_is_waited_for_with_patience() {
        let flights = Flights::default();
        let ahead = flights.begin_ahead(0..8192).unwrap();
        assert!(!flights.begin(4096..8192, Duration::ZERO).has_waited());
        let short = flights.begin(0..4096, Duration::from_millis(1));
        assert!(short.has_waited(), "but not for ever");
        drop(short);
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| tell.send(flights.begin(0..4096, LONG).has_waited()));
            somebody_waits(&flights);
            drop(ahead);
            assert!(told.recv_timeout(scaled(SOON)).unwrap());
        });
    }

    #[test]
    fn what_is_read_ahead_waits_for_nobody() {
        let flights = Flights::default();
        let read = flights.begin(4096..8192, LONG);
        assert!(flights.begin_ahead(4096..8192).is_none());
        let rest = flights.begin_ahead(0..65_536).unwrap();
        assert_eq!(rest.range(), 8192..65_536, "the longer part");
        assert!(flights.begin_ahead(8192..16_384).is_none());
        thread::scope(|scope| {
            scope.spawn(|| flights.begin(0..8192, LONG));
            somebody_waits(&flights);
            // It would be waited for.
            assert!(flights.begin_ahead(0..4096).is_none());
            drop(read);
        });
        assert!(flights.begin_ahead(0..4096).is_some());
        assert!(flights.begin_ahead(0..0).is_none());
    }
}
