// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which pages of a file hold data: `store/present.rs` beside a set of numbers.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Range;

use ondemand_core::present::parts;
use ondemand_core::present::Chunk;
use ondemand_core::present::Chunks;
use ondemand_core::present::Map;
use ondemand_core::present::Part;
use ondemand_core::present::Step;
use ondemand_core::present::CHUNK;
use ondemand_core::present::WORDS;
use proptest::prelude::*;

type Bits = Box<[u64; WORDS]>;

#[derive(Default)]
struct Tree(BTreeMap<u64, Chunk<Bits>>);

impl Chunks for Tree {
    type Bits = Bits;

    fn get(&mut self, number: u64) -> Option<&mut Chunk<Bits>> {
        self.0.get_mut(&number)
    }

    fn next(&mut self, from: u64) -> Option<u64> {
        self.0.range(from..).next().map(|(number, _)| *number)
    }
}

/// The map as the module uses it: memory first, then the mark.
struct Present(Map<Tree>);

impl Present {
    fn new() -> Self {
        Present(Map::new(Tree::default()))
    }

    fn reserve(&mut self, pages: Range<u64>) {
        for part in parts(pages) {
            if self.0.lacks(part.number) {
                let chunk = Chunk::new(Box::new([0; WORDS]));
                self.0.chunks().0.insert(part.number, chunk);
            }
        }
    }

    fn mark(&mut self, pages: Range<u64>) {
        self.reserve(pages.clone());
        for part in parts(pages) {
            self.0.mark(&part);
        }
    }

    fn forget(&mut self, pages: Range<u64>) {
        for part in parts(pages) {
            self.0.forget(&part);
        }
    }

    /// The first page that is present, or absent; how many chunks were looked at.
    fn find(&mut self, from: u64, present: bool) -> (Option<u64>, u32) {
        let mut at = from;
        for looks in 1.. {
            match self.0.step(at, present) {
                Step::Found(page) => return (Some(page), looks),
                Step::GoOn(next) => {
                    assert!(next > at, "from {at} on to {next}");
                    at = next;
                }
                Step::Nowhere => return (None, looks),
            }
        }
        unreachable!()
    }
}

#[test]
fn a_new_file_has_no_page() {
    let mut map = Present::new();
    assert_eq!(map.find(0, true), (None, 1));
    assert_eq!(map.find(7 * CHUNK + 3, false), (Some(7 * CHUNK + 3), 1));
    assert!(map.0.lacks(0));
}

#[test]
fn parts_are_the_whole_in_order() {
    assert_eq!(parts(5..5).count(), 0);
    let part = |number, pages| Part { number, pages };
    assert_eq!(parts(3..4).collect::<Vec<_>>(), [part(0, 3..4)]);
    assert_eq!(
        parts(CHUNK - 1..2 * CHUNK + 2).collect::<Vec<_>>(),
        [part(0, CHUNK - 1..CHUNK), part(1, 0..CHUNK), part(2, 0..2)]
    );
    // The last page of a file of 2^63 bytes.
    let last = (1 << 51) - 1;
    assert_eq!(
        parts(last..last + 1).collect::<Vec<_>>(),
        [part(last / CHUNK, CHUNK - 1..CHUNK)]
    );
}

#[test]
fn a_page_is_found_behind_chunks_that_are_missing() {
    let mut map = Present::new();
    let far = 1000 * CHUNK + 17;
    map.mark(far..far + 1);
    // Not a step a chunk.
    assert_eq!(map.find(0, true), (Some(far), 2));
    assert_eq!(map.find(far, false), (Some(far + 1), 1));
    assert_eq!(map.find(far + 1, true).0, None);
}

#[test]
fn a_full_chunk_gives_its_memory_back() {
    let mut map = Present::new();
    map.reserve(0..CHUNK);
    for page in 0..CHUNK - 1 {
        let part = parts(page..page + 1).next().unwrap();
        assert!(map.0.mark(&part).is_none());
    }
    let last = parts(CHUNK - 1..CHUNK).next().unwrap();
    assert!(map.0.mark(&last).is_some());
    assert!(!map.0.lacks(0), "it needs none again");
    assert!(map.0.mark(&last).is_none(), "twice");
    assert_eq!(map.find(0, false), (Some(CHUNK), 2));
    assert_eq!(map.find(5, true), (Some(5), 1));
}

#[test]
fn what_was_marked_twice_counts_once() {
    let mut map = Present::new();
    for _ in 0..2 {
        map.mark(0..CHUNK / 2);
    }
    map.mark(CHUNK / 4..CHUNK - 1);
    assert_eq!(map.find(0, false).0, Some(CHUNK - 1));
    map.mark(CHUNK - 1..CHUNK);
    assert_eq!(map.find(0, false).0, Some(CHUNK));
}

#[test]
fn without_memory_pages_stay_absent() {
    let mut map = Present::new();
    for part in parts(0..10) {
        assert!(map.0.mark(&part).is_none());
    }
    assert_eq!(map.find(0, true).0, None);
    map.forget(0..10);
    assert_eq!(map.find(0, true).0, None);
}

#[test]
fn a_full_chunk_that_is_cut_is_forgotten_whole() {
    let mut map = Present::new();
    map.mark(0..3 * CHUNK);
    map.forget(CHUNK + 1..3 * CHUNK);
    assert_eq!(map.find(0, false).0, Some(CHUNK));
    assert_eq!(map.find(CHUNK, true).0, None);
    // Until memory comes for it nothing can be marked.
    assert!(map.0.lacks(1));
    map.mark(CHUNK + 5..CHUNK + 6);
    assert_eq!(map.find(CHUNK, true).0, Some(CHUNK + 5));
}

#[derive(Clone, Debug)]
enum Action {
    Mark(Range<u64>),
    Forget(Range<u64>),
    Find(u64, bool),
}

/// Ranges around the edges of words and chunks, short ones and whole chunks.
fn range() -> impl Strategy<Value = Range<u64>> {
    let edge = prop_oneof![0..4 * CHUNK, (0..64u64).prop_map(|n| n * CHUNK / 16)];
    let len = prop_oneof![0..130u64, 0..2 * CHUNK, Just(CHUNK)];
    (edge, 0..3u64, len).prop_map(|(edge, less, len)| {
        let start = edge.saturating_sub(less);
        start..start + len
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => range().prop_map(Action::Mark),
        1 => range().prop_map(Action::Forget),
        4 => (range(), any::<bool>()).prop_map(|(range, present)| Action::Find(range.start, present)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn as_a_set_of_numbers(actions in prop::collection::vec(action(), 1..60)) {
        let mut map = Present::new();
        let mut set = BTreeSet::new();
        for action in actions {
            match action {
                Action::Mark(range) => {
                    map.mark(range.clone());
                    set.extend(range);
                }
                Action::Forget(range) => {
                    map.forget(range.clone());
                    for part in parts(range) {
                        let base = part.number * CHUNK;
                        // A chunk that has no bits is forgotten whole.
                        let all = set.range(base..base + CHUNK).count() as u64 == CHUNK;
                        let gone = if all { 0..CHUNK } else { part.pages };
                        for page in gone {
                            set.remove(&(base + page));
                        }
                    }
                }
                Action::Find(from, present) => {
                    let wanted = if present {
                        set.range(from..).next().copied()
                    } else {
                        (from..).find(|page| !set.contains(page))
                    };
                    prop_assert_eq!(map.find(from, present).0, wanted);
                }
            }
        }
    }
}
