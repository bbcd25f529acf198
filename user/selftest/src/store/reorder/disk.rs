// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bytes of a disk at a point of a log.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Result;

use super::log::Kind;
use super::log::Log;
use super::survive::Crash;
use super::survive::Survivor;

const BLOCK: usize = 4096;

type Block = Box<[u8; BLOCK]>;

/// Blocks by their number.
type Blocks = BTreeMap<usize, Block>;

/// A disk, of which only blocks with something in them take memory. It is moved forward along the log.
#[derive(Debug, Default)]
pub struct Disk {
    blocks: Blocks,
    /// All writes before this entry are in it.
    applied: usize,
}

impl Disk {
    /// Applies all writes before the entry `to`, which must not be before the last such call's.
    pub fn advance(&mut self, log: &Log, to: usize) {
        for index in self.applied..to {
            apply(log, index, None, &mut self.blocks, &Blocks::new());
        }
        self.applied = self.applied.max(to);
    }

    /// All writes before this entry are in it.
    #[must_use]
    pub fn applied(&self) -> usize {
        self.applied
    }

    /// The blocks that differ from this disk after a loss of power. The disk must have been moved to what was
    /// flushed.
    #[must_use]
    pub fn changed_by(&self, log: &Log, crash: &Crash) -> Changes {
        debug_assert_eq!(self.applied, crash.flushed, "another place of the log");
        let mut changes = Changes::default();
        for Survivor { index, sectors } in &crash.survivors {
            apply(
                log,
                *index,
                sectors.as_deref(),
                &mut changes.0,
                &self.blocks,
            );
        }
        changes
    }

    /// Zeros in place of some blocks: what the disk has lost, though it was flushed. Nothing that a disk may do; it
    /// is how a check is checked.
    #[must_use]
    pub fn without(&self, mut lost: impl FnMut(&[u8]) -> bool) -> Changes {
        let blocks = self.blocks.iter().filter(|(_, block)| lost(&block[..]));
        Changes(blocks.map(|(at, _)| (*at, zeros())).collect())
    }

    /// Writes the disk with these changes into a file that is empty or has no data.
    ///
    /// # Errors
    ///
    /// What `pwrite` says.
    pub fn write(&self, changes: &Changes, file: &File) -> Result<()> {
        let mut run = Run::default();
        let mut old = self.blocks.iter().peekable();
        let mut new = changes.0.iter().peekable();
        loop {
            let (at, block) = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some((at, _)), Some((newer, _))) if at < newer => old.next(),
                (Some((at, _)), Some((newer, _))) => {
                    if at == newer {
                        old.next();
                    }
                    new.next()
                }
                (Some(_), None) => old.next(),
                (None, Some(_)) => new.next(),
            }
            .unwrap_or_else(|| unreachable!("one was there"));
            // What is zeros is a hole, and takes no memory.
            if block[..] != [0; BLOCK] {
                run.add(*at, &block[..], file)?;
            }
        }
        run.flush(file)
    }
}

/// Blocks that take the place of others.
#[derive(Debug, Default)]
pub struct Changes(Blocks);

impl Changes {
    /// How many blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn zeros() -> Block {
    Box::new([0; BLOCK])
}

/// Writes what an entry has written into `blocks`; a block that is not there is as it is in `old`. `there`: of
/// each of its sectors, whether it is written.
fn apply(log: &Log, index: usize, there: Option<&[bool]>, blocks: &mut Blocks, old: &Blocks) {
    let entry = &log.entries[index];
    let Ok(offset) = usize::try_from(entry.offset) else {
        return;
    };
    let nothing;
    let data = match &entry.kind {
        Kind::Write { .. } => log.data(index),
        Kind::Discard(len) => {
            nothing = vec![0; usize::try_from(*len).unwrap_or(0)];
            &nothing
        }
        Kind::Flush | Kind::Mark(_) => return,
    };
    let size = log.sector.min(BLOCK);
    for (number, sector) in data.chunks(size).enumerate() {
        if there.is_some_and(|there| there.get(number * size / log.sector) == Some(&false)) {
            continue;
        }
        let at = offset + number * size;
        let known = blocks.contains_key(&(at / BLOCK)) || old.contains_key(&(at / BLOCK));
        if !known && sector == &[0; BLOCK][..sector.len()] {
            continue;
        }
        let block = blocks.entry(at / BLOCK).or_insert_with(|| {
            let before = old.get(&(at / BLOCK));
            before.cloned().unwrap_or_else(zeros)
        });
        block[at % BLOCK..at % BLOCK + sector.len()].copy_from_slice(sector);
    }
}

/// Neighbours are written together.
#[derive(Default)]
struct Run {
    begin: usize,
    bytes: Vec<u8>,
}

impl Run {
    const MOST: usize = 1 << 20;

    fn add(&mut self, at: usize, block: &[u8], file: &File) -> Result<()> {
        let end = self.begin + self.bytes.len();
        if end != at * BLOCK || self.bytes.len() >= Self::MOST {
            self.flush(file)?;
            self.begin = at * BLOCK;
        }
        self.bytes.extend_from_slice(block);
        Ok(())
    }

    fn flush(&mut self, file: &File) -> Result<()> {
        file.write_all_at(&self.bytes, u64::try_from(self.begin)?)?;
        self.bytes.clear();
        Ok(())
    }
}

#[cfg(test)]
mod bytes {
    use super::super::log::made;
    use super::super::log::made::sector;
    use super::super::random::Random;
    use super::super::survive::crash;
    use super::super::survive::Choice;
    use super::super::survive::Cut;
    use super::*;

    const FLUSH: u64 = 1;

    fn written(disk: &Disk, changes: &Changes) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(32 * 512).unwrap();
        disk.write(changes, &file).unwrap();
        let mut bytes = vec![0; 32 * 512];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn first_of_each(bytes: &[u8]) -> Vec<u8> {
        bytes.chunks(512).map(|sector| sector[0]).collect()
    }

    #[test]
    fn are_those_of_the_log_and_a_later_point_has_more() {
        let three = [sector(1), sector(2), sector(3)].concat();
        // The first write lies over the end of a block.
        let log = made::log(&[
            (6, 0, &three),
            (0, FLUSH, &[]),
            (7, 0, &sector(9)),
            (8, 0, &sector(8)),
            (20, 0, &sector(5)),
        ]);
        let mut disk = Disk::default();
        disk.advance(&log, 1);
        let mut expected = vec![0; 32];
        expected[6..9].copy_from_slice(&[1, 2, 3]);
        assert_eq!(
            first_of_each(&written(&disk, &Changes::default())),
            expected
        );

        let random = &mut Random::new(1);
        let cut = Cut {
            position: 5,
            choice: Choice::Everything,
            torn: false,
            whole: 0..0,
        };
        let all = crash(&log, &cut, random, |_| false);
        let changes = disk.changed_by(&log, &all);
        assert_eq!(changes.len(), 3);
        expected[7..9].copy_from_slice(&[9, 8]);
        expected[20] = 5;
        assert_eq!(first_of_each(&written(&disk, &changes)), expected);
        // The disk itself is as it was.
        disk.advance(&log, 5);
        assert_eq!(
            first_of_each(&written(&disk, &Changes::default())),
            expected
        );
    }

    #[test]
    fn of_a_torn_write_are_there_in_part() {
        let three = [sector(1), sector(2), sector(3)].concat();
        let log = made::log(&[(7, 0, &three)]);
        let survivor = Survivor {
            index: 0,
            sectors: Some(vec![true, false, true]),
        };
        let crash = Crash {
            position: 1,
            flushed: 0,
            survivors: vec![survivor],
            lost: 0,
        };
        let disk = Disk::default();
        let bytes = written(&disk, &disk.changed_by(&log, &crash));
        assert_eq!(first_of_each(&bytes)[6..11], [0, 1, 0, 3, 0]);
    }

    #[test]
    fn that_a_check_must_miss_are_zeros() {
        let log = made::log(&[(0, 0, &sector(1)), (8, 0, &sector(2))]);
        let mut disk = Disk::default();
        disk.advance(&log, 2);
        let lost = disk.without(|block| block[0] == 2);
        assert_eq!(
            first_of_each(&written(&disk, &lost))[..9],
            [1, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }
}
