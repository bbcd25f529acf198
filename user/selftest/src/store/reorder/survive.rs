// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a disk with a volatile cache has on its medium when the power goes.
//!
//! All that was complete before the last flush is there, and what was written with FUA. Of the rest, which was
//! complete as well, anything may be there: the disk writes it in any order. Of a write some sectors may be there
//! and others not; a sector is old or new, for disks promise that much. Where two writes of the rest overlap, the
//! newer one counts if it is there at all: a disk that puts old data over new is broken.
//!
//! One write is never torn: that of the file system's superblock. ext4's is 1024 bytes under one checksum, and a
//! mount refuses it (EBADMSG) if 512 bytes of it are old, before it looks at the journal; `e2fsck` takes the copy
//! of it then. What a cache stores has no part in that.

use std::fmt;
use std::ops::Range;

use super::log::Kind;
use super::log::Log;
use super::random::Random;

/// Which of the writes that were not flushed are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// All but one.
    AllButOne,
    /// One alone.
    One,
    /// Those after some place alone: the last ones first.
    Newest,
    /// Each with this chance, in percent.
    Chance(usize),
    /// All that are not data of an object: the file system's own.
    NoData,
    /// Those that are data of an object alone.
    DataAlone,
}

/// How often each is chosen, of the sum of all.
const CHOICES: [(Choice, usize); 11] = [
    (Choice::Nothing, 1),
    (Choice::Everything, 1),
    (Choice::AllButOne, 3),
    (Choice::One, 2),
    (Choice::Newest, 2),
    (Choice::Chance(10), 1),
    (Choice::Chance(50), 4),
    (Choice::Chance(90), 3),
    (Choice::Chance(97), 1),
    (Choice::NoData, 4),
    (Choice::DataAlone, 2),
];

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Nothing => f.write_str("none"),
            Choice::Everything => f.write_str("all"),
            Choice::AllButOne => f.write_str("all but one"),
            Choice::One => f.write_str("only one"),
            Choice::Newest => f.write_str("only the newest"),
            Choice::Chance(percent) => write!(f, "{percent} %"),
            Choice::NoData => f.write_str("all but data"),
            Choice::DataAlone => f.write_str("only data"),
        }
    }
}

impl Choice {
    /// One of them.
    pub fn draw(random: &mut Random) -> Self {
        let mut number = random.below(CHOICES.iter().map(|(_, share)| share).sum());
        for (choice, share) in CHOICES {
            if number < share {
                return choice;
            }
            number -= share;
        }
        Choice::Everything
    }
}

/// A write that is there, though nothing has flushed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Its entry.
    pub index: usize,
    /// Of each of its sectors, whether it is there; `None`: all are.
    pub sectors: Option<Vec<bool>>,
}

/// What a loss of power leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// So many entries were complete.
    pub position: usize,
    /// All writes before this entry are there.
    pub flushed: usize,
    /// Of those from there on, these, in the order of the log.
    pub survivors: Vec<Survivor>,
    /// How many others there are, which are lost.
    pub lost: usize,
}

/// The last entry before `position` that flushes; 0 if there is none.
#[must_use]
pub fn last_flush(log: &Log, position: usize) -> usize {
    let before = &log.entries[..position.min(log.entries.len())];
    before
        .iter()
        .rposition(super::log::Entry::flushes)
        .unwrap_or(0)
}

/// A loss of power.
#[derive(Clone, Debug)]
pub struct Cut {
    /// After so many entries.
    pub position: usize,
    /// Which of the writes that were not flushed are there.
    pub choice: Choice,
    /// Some of them are there in part.
    pub torn: bool,
    /// Bytes of the disk that are written at once or not at all.
    pub whole: Range<u64>,
}

/// What a loss of power leaves. `is_data`: whether an entry writes data of an object.
pub fn crash(log: &Log, cut: &Cut, random: &mut Random, is_data: impl Fn(usize) -> bool) -> Crash {
    let position = cut.position.min(log.entries.len());
    let flushed = last_flush(log, position);
    let volatile: Vec<usize> = (flushed..position)
        .filter(|&index| match log.entries[index].kind {
            Kind::Write { fua, .. } => !fua,
            Kind::Discard(_) => true,
            Kind::Flush | Kind::Mark(_) => false,
        })
        .collect();
    let kept = keep(&volatile, cut.choice, random, is_data);
    let mut survivors = Vec::new();
    for index in flushed..position {
        if let Kind::Write { fua: true, .. } = log.entries[index].kind {
            let sectors = None;
            survivors.push(Survivor { index, sectors });
        } else if kept.contains(&index) {
            let count = log.data(index).len() / log.sector;
            let mut sectors =
                (cut.torn && count > 1 && random.percent(30)).then(|| tear(count, random));
            if let Some(sectors) = &mut sectors {
                let begin = log.entries[index].offset;
                make_whole(sectors, begin, log.sector, &cut.whole);
            }
            survivors.push(Survivor { index, sectors });
        }
    }
    Crash {
        position,
        flushed,
        survivors,
        lost: volatile.len() - kept.len(),
    }
}

/// Those of `volatile` that are there, in its order.
fn keep(
    volatile: &[usize],
    choice: Choice,
    random: &mut Random,
    is_data: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let one = random.one_of(volatile).copied();
    let from = random.below(volatile.len());
    let mut kept = volatile.to_vec();
    match choice {
        Choice::Nothing => kept.clear(),
        Choice::Everything => {}
        Choice::AllButOne => kept.retain(|index| Some(*index) != one),
        Choice::One => kept.retain(|index| Some(*index) == one),
        Choice::Newest => drop(kept.drain(..from)),
        Choice::Chance(percent) => kept.retain(|_| random.percent(percent)),
        Choice::NoData => kept.retain(|index| !is_data(*index)),
        Choice::DataAlone => kept.retain(|index| is_data(*index)),
    }
    kept
}

/// Which of `count` sectors are there: the first ones, the last ones, or any.
fn tear(count: usize, random: &mut Random) -> Vec<bool> {
    let at = random.below(count);
    let kind = random.below(3);
    (0..count)
        .map(|sector| match kind {
            0 => sector < at,
            1 => sector >= at,
            _ => random.percent(50),
        })
        .collect()
}

/// The sectors of `whole` in a write to `begin` are all there, or none of them, as the first one is.
fn make_whole(sectors: &mut [bool], begin: u64, sector: usize, whole: &Range<u64>) {
    let mut first = None;
    for (at, there) in (begin..).step_by(sector).zip(sectors) {
        if at < whole.end && at + sector as u64 > whole.start {
            *there = *first.get_or_insert(*there);
        }
    }
}

#[cfg(test)]
mod surviving {
    use super::super::log::made;
    use super::super::log::made::sector;
    use super::*;

    const FLUSH: u64 = 1;
    const FUA: u64 = 2;

    /// Ten writes, a flush, ten writes of which the sixth has FUA.
    fn twenty() -> Log {
        let data = [sector(1), sector(2)].concat();
        let mut entries: Vec<(u64, u64, &[u8])> = (0..20).map(|at| (at, 0, &data[..])).collect();
        entries[15].1 = FUA;
        entries.insert(10, (0, FLUSH, &[]));
        made::log(&entries)
    }

    fn at(position: usize, choice: Choice, torn: bool) -> Cut {
        Cut {
            position,
            choice,
            torn,
            whole: 0..0,
        }
    }

    fn indices(crash: &Crash) -> Vec<usize> {
        crash.survivors.iter().map(|one| one.index).collect()
    }

    #[test]
    fn what_was_flushed_is_there_and_what_has_fua() {
        let log = twenty();
        for number in 0..200 {
            let mut random = Random::of(1, number);
            let choice = Choice::draw(&mut random);
            let crash = crash(&log, &at(21, choice, true), &mut random, |_| false);
            assert_eq!((crash.position, crash.flushed), (21, 10));
            let there = indices(&crash);
            assert!(there.iter().all(|index| (11..21).contains(index)));
            assert!(there.is_sorted());
            // The one with FUA is whole.
            let fua = crash.survivors.iter().find(|one| one.index == 16);
            assert!(fua.is_some_and(|one| one.sectors.is_none()), "{choice}");
            assert_eq!(there.len() + crash.lost, 10);
        }
        let early = at(5, Choice::Nothing, false);
        assert_eq!(
            crash(&log, &early, &mut Random::new(1), |_| false).flushed,
            0
        );
    }

    #[test]
    fn each_choice_is_what_it_says() {
        let log = twenty();
        let of = |choice| {
            let random = &mut Random::new(7);
            let cut = at(21, choice, false);
            indices(&crash(&log, &cut, random, |index| index % 2 == 0))
        };
        assert_eq!(of(Choice::Nothing), [16]);
        assert_eq!(of(Choice::Everything), (11..21).collect::<Vec<_>>());
        assert_eq!(of(Choice::AllButOne).len(), 9);
        assert_eq!(of(Choice::One).len(), 2);
        let newest = of(Choice::Newest);
        assert!(newest.contains(&20) && newest.len() <= 10);
        assert_eq!(of(Choice::NoData), [11, 13, 15, 16, 17, 19]);
        assert_eq!(of(Choice::DataAlone), [12, 14, 16, 18, 20]);
    }

    #[test]
    fn every_choice_is_drawn_and_writes_are_torn() {
        let log = twenty();
        let mut random = Random::new(2);
        let mut drawn = Vec::new();
        let mut torn = 0;
        for _ in 0..500 {
            let choice = Choice::draw(&mut random);
            if !drawn.contains(&choice) {
                drawn.push(choice);
            }
            let crash = crash(&log, &at(21, choice, true), &mut random, |_| true);
            let sectors = crash
                .survivors
                .iter()
                .filter_map(|one| one.sectors.as_ref());
            torn += sectors
                .filter(|there| there.iter().any(|there| !there))
                .count();
        }
        assert_eq!(drawn.len(), CHOICES.len());
        assert!(torn > 100, "{torn} writes were torn");
    }
    #[test]
    fn what_is_written_at_once_is_not_torn() {
        let data = [1, 2, 3, 4].map(sector).concat();
        let log = made::log(&[(0, 0, &data), (8, 0, &data)]);
        let size = log.sector as u64;
        let (mut torn, mut elsewhere) = (0, 0);
        for number in 0..500 {
            let cut = Cut {
                whole: size..3 * size,
                ..at(2, Choice::Everything, true)
            };
            let crash = crash(&log, &cut, &mut Random::of(3, number), |_| false);
            for one in &crash.survivors {
                let Some(there) = &one.sectors else { continue };
                let differ = there[1] != there[2];
                if one.index == 0 {
                    assert!(!differ, "{there:?}");
                    torn += usize::from(there.contains(&true) && there.contains(&false));
                } else {
                    elsewhere += usize::from(differ);
                }
            }
        }
        assert!(torn > 20 && elsewhere > 10, "{torn}, {elsewhere}");
    }
}
