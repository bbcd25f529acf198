// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which objects go first: the longest unused, in batches of a bounded size.
//!
//! A store may hold millions of objects, so one walk keeps no more than a batch of them. If a whole
//! batch turns out to be in use, the next walk looks for those that come after it: candidates are in
//! a total order, of last use and then of place.

use std::collections::BinaryHeap;
use std::ffi::OsString;
use std::sync::Arc;

use rustix::fs::Stat;

/// When an object was last used: seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Used(i64, u64);

/// Where an object lies, below `cache/`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    /// `I` and the volume's key.
    pub(crate) volume: Arc<OsString>,
    /// `@00` to `@ff`.
    pub(crate) fanout: Arc<OsString>,
    /// The file.
    pub(crate) name: OsString,
}

/// An object that may go. The order is that of going.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Candidate {
    pub(crate) used: Used,
    pub(crate) place: Place,
}

/// The first so many candidates of all that are offered.
#[derive(Debug)]
pub(crate) struct Oldest {
    room: usize,
    after: Option<Candidate>,
    /// The latest is on top.
    heap: BinaryHeap<Candidate>,
}

impl Used {
    /// The kernel touches the access time when it opens an object, and a read may; but the file
    /// system can be mounted with `noatime`, or with `relatime`, which leaves it alone for a day.
    /// The last fill is a use, too.
    #[expect(
        clippy::allow_attributes,
        reason = "the types of `Stat` depend on the machine, and so do the lints"
    )]
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    pub(crate) fn of(stat: &Stat) -> Self {
        let nanoseconds = |value| u64::try_from(value).unwrap_or(0);
        let access = Used(i64::from(stat.st_atime), nanoseconds(stat.st_atime_nsec));
        let change = Used(i64::from(stat.st_mtime), nanoseconds(stat.st_mtime_nsec));
        access.max(change)
    }
}

impl Oldest {
    /// Takes the first `room` of those that come after `after`.
    pub(crate) fn new(room: usize, after: Option<Candidate>) -> Self {
        Oldest {
            room,
            after,
            heap: BinaryHeap::new(),
        }
    }

    /// Takes a candidate, if it is one of the first so far.
    pub(crate) fn offer(&mut self, candidate: Candidate) {
        if self.after.as_ref().is_some_and(|after| candidate <= *after) {
            return;
        }
        if self.heap.len() >= self.room {
            match self.heap.peek_mut() {
                Some(mut latest) if candidate < *latest => *latest = candidate,
                _ => {}
            }
            return;
        }
        self.heap.push(candidate);
    }

    /// The candidates, oldest first.
    pub(crate) fn into_sorted(self) -> Vec<Candidate> {
        self.heap.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(seconds: i64, name: &str) -> Candidate {
        Candidate {
            used: Used(seconds, 0),
            place: Place {
                volume: Arc::new("Iv".into()),
                fanout: Arc::new("@00".into()),
                name: name.into(),
            },
        }
    }

    #[test]
    fn the_later_of_access_and_fill_counts() {
        let mut stat = rustix::fs::stat("/").unwrap();
        (stat.st_atime, stat.st_atime_nsec) = (5, 7);
        (stat.st_mtime, stat.st_mtime_nsec) = (5, 6);
        assert_eq!(Used::of(&stat), Used(5, 7));
        stat.st_mtime = 6;
        assert_eq!(Used::of(&stat), Used(6, 6));
    }

    #[test]
    fn no_room_takes_nothing() {
        let mut oldest = Oldest::new(0, None);
        oldest.offer(candidate(1, "a"));
        assert_eq!(oldest.into_sorted(), []);
    }

    proptest! {
        /// Batch by batch, each candidate comes exactly once, and in order.
        #[test]
        fn batches_are_the_sorted_whole(
            times in proptest::collection::vec(0_i64..20, 0..60),
            room in 1_usize..9,
        ) {
            let all: Vec<_> = times
                .iter()
                .enumerate()
                .map(|(index, time)| candidate(*time, &format!("D{index}")))
                .collect();
            let mut taken = Vec::new();
            loop {
                let mut oldest = Oldest::new(room, taken.last().cloned());
                all.iter().for_each(|candidate| oldest.offer(candidate.clone()));
                prop_assert!(oldest.heap.len() <= room);
                let batch = oldest.into_sorted();
                if batch.is_empty() {
                    break;
                }
                taken.extend(batch);
            }
            let mut sorted = all;
            sorted.sort();
            prop_assert_eq!(taken, sorted);
        }
    }
}
