// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers of all kinds, without a source.

use proptest::prelude::*;

use super::*;

const BLOCK: u64 = 4096;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A READ of `len` bytes at `at`.
fn read(at: u64, len: u64) -> Range<u64> {
    at..at + len
}

#[test]
fn a_row_is_read_ahead_twice_as_far_each_time() {
    let mut pattern = Pattern::new(MIB, BLOCK, 1 << 40);
    assert_eq!(pattern.note(&read(0, 128 * KIB)), None, "it may be alone");
    let first = pattern.note(&read(128 * KIB, 128 * KIB)).unwrap();
    assert_eq!(first, 256 * KIB..512 * KIB, "as much as was read");
    // All of it has come: the next READ begins at its end.
    let second = pattern.note(&read(512 * KIB, 128 * KIB)).unwrap();
    assert_eq!(second, 640 * KIB..1280 * KIB);
    let third = pattern.note(&read(1280 * KIB, 128 * KIB)).unwrap();
    assert_eq!(third, 1408 * KIB..1408 * KIB + MIB, "the most");
}

#[test]
fn the_next_part_is_due_in_the_second_half() {
    let mut pattern = Pattern::new(MIB, BLOCK, 1 << 40);
    pattern.note(&read(0, MIB));
    assert_eq!(pattern.note(&read(MIB, MIB)), Some(2 * MIB..3 * MIB));
    // The reader is faster than the source.
    for at in [0, 128, 256, 384] {
        let early = read(2 * MIB + at * KIB, 128 * KIB);
        assert_eq!(pattern.note(&early), None, "{at}");
    }
    let late = read(2 * MIB + 512 * KIB, 128 * KIB);
    assert_eq!(pattern.note(&late), Some(3 * MIB..4 * MIB));
    assert_eq!(pattern.note(&late), None, "once");
    // What is left of the part before is the same row's.
    assert_eq!(pattern.note(&read(3 * MIB - 128 * KIB, 128 * KIB)), None);
    let late = read(3 * MIB + 512 * KIB, 128 * KIB);
    assert_eq!(pattern.note(&late), Some(4 * MIB..5 * MIB));
    // One that reaches over all of it.
    assert_eq!(
        pattern.note(&read(4 * MIB, 2 * MIB)),
        Some(6 * MIB..7 * MIB)
    );
}

#[test]
fn a_blob_has_an_end() {
    let end = MIB + BLOCK;
    let mut pattern = Pattern::new(8 * MIB, 64 * KIB, end);
    pattern.note(&read(0, 512 * KIB));
    assert_eq!(pattern.note(&read(512 * KIB, 512 * KIB)), Some(MIB..end));
    assert_eq!(pattern.note(&read(MIB, BLOCK)), None);
    assert_eq!(pattern.note(&read(0, end)), None, "begins again");
    // Beyond it, and what the kernel cannot mean.
    assert_eq!(pattern.note(&read(2 * end, BLOCK)), None);
    assert_eq!(pattern.note(&read(2 * end + BLOCK, BLOCK)), None);
    let backwards = Range { start: 9, end: 8 };
    assert_eq!(pattern.note(&backwards), None);
}

#[test]
fn what_was_forgotten_begins_anew() {
    let mut pattern = Pattern::new(MIB, BLOCK, 1 << 40);
    pattern.note(&read(0, BLOCK));
    pattern.forget();
    assert_eq!(pattern.note(&read(BLOCK, BLOCK)), None);
    assert!(pattern.note(&read(2 * BLOCK, BLOCK)).is_some());
    pattern.forget();
    assert_eq!(pattern.note(&read(2 * BLOCK + LEAST, BLOCK)), None);
}

#[test]
fn scattered_reads_do_not_drive_out_a_row() {
    let mut pattern = Pattern::new(MIB, BLOCK, 1 << 40);
    pattern.note(&read(0, MIB));
    assert!(pattern.note(&read(MIB, MIB)).is_some());
    for n in 1..1000 {
        assert_eq!(pattern.note(&read(n * 16 * MIB, BLOCK)), None);
    }
    assert!(pattern.note(&read(3 * MIB, MIB)).is_some());
}

/// What happens to what is read ahead, seen from a reader.
#[derive(Clone, Copy, Debug)]
enum Landing {
    /// All of it is there when the reader comes.
    Early,
    /// Nothing is: there is a READ for each step.
    Late,
}

/// Reads on from `at` by `step` bytes until there is a READ, which is noted; the next place to read, and what was
/// read ahead.
fn go_on(
    pattern: &mut Pattern,
    held: &mut Vec<Range<u64>>,
    at: u64,
    step: u64,
    landing: Landing,
) -> (u64, Option<Range<u64>>) {
    let mut at = at;
    if matches!(landing, Landing::Early) {
        while let Some(range) = held.iter().find(|range| range.contains(&at)) {
            at = range.end;
        }
    }
    let part = pattern.note(&read(at, step));
    held.extend(part.clone());
    (at + step, part)
}

proptest! {
    #[test]
    fn scattered_reads_cost_nothing(
        places in prop::collection::vec((0_u64..1 << 30, 1_u64..=16), 1..200),
    ) {
        // Of every two READs one ends where the other cannot begin: begins are at even blocks, ends at odd
        // ones.
        let mut pattern = Pattern::new(8 * MIB, BLOCK, u64::MAX - 4095);
        for (place, length) in places {
            let at = place * 2 * BLOCK;
            prop_assert_eq!(pattern.note(&(at..at + (2 * length - 1) * BLOCK)), None);
        }
    }

    #[test]
    fn rows_are_told_apart(
        steps in prop::collection::vec(1_u64..64, 4),
        turns in prop::collection::vec(0_usize..4, 40..200),
        early in any::<bool>(),
    ) {
        let landing = if early { Landing::Early } else { Landing::Late };
        let mut pattern = Pattern::new(2 * MIB, BLOCK, 1 << 50);
        let far = |reader: usize| u64::try_from(reader).unwrap() << 40;
        let mut places: Vec<u64> = (0..4).map(far).collect();
        let mut reads = [0; 4];
        let mut held: Vec<Vec<Range<u64>>> = vec![Vec::new(); 4];
        for reader in turns {
            let step = steps[reader] * BLOCK;
            let (next, part) =
                go_on(&mut pattern, &mut held[reader], places[reader], step, landing);
            places[reader] = next;
            reads[reader] += 1;
            if reads[reader] == 2 || (reads[reader] > 2 && early) {
                prop_assert!(part.is_some(), "READ {} of reader {reader}", reads[reader]);
            }
            // It is that reader's, and nothing is told twice.
            if let Some(part) = part {
                prop_assert!(part.start >= next && part.start >> 40 == far(reader) >> 40);
            }
            let mut sorted = held[reader].clone();
            sorted.sort_by_key(|range| range.start);
            prop_assert!(sorted.windows(2).all(|two| two[0].end <= two[1].start));
        }
        // No more is read ahead than was read before it, but for the shortest.
        for (reader, held) in held.iter().enumerate() {
            if let Some(last) = held.iter().max_by_key(|range| range.start) {
                let row = last.start - far(reader);
                prop_assert!(last.end - last.start <= row.clamp(LEAST, 2 * MIB));
            }
        }
    }

    #[test]
    fn whatever_is_read_the_answer_is_sound(
        reads in prop::collection::vec((any::<u64>(), any::<u64>(), any::<bool>()), 1..100),
        most in LEAST..1 << 40,
        chunk in 12_u32..=20,
        end in any::<u64>(),
    ) {
        let unit = 1 << chunk;
        let end = end / BLOCK * BLOCK;
        let mut pattern = Pattern::new(most, unit, end);
        let mut last = 0;
        for (start, length, goes_on) in reads {
            let start = if goes_on { last } else { start };
            let read = start..start.saturating_add(length);
            last = read.end;
            let Some(part) = pattern.note(&read) else {
                continue;
            };
            prop_assert!(!part.is_empty() && part.end <= end);
            prop_assert!(part.start >= read.end);
            prop_assert!(part.start.is_multiple_of(unit));
            prop_assert!(part.end == end || part.end.is_multiple_of(unit));
            prop_assert!(part.end - part.start < most + unit);
        }
    }
}
