// SPDX-License-Identifier: MIT OR Apache-2.0

//! The log of what was written to a disk: the format of dm-log-writes, as QEMU's block driver `blklogwrites`
//! writes it too.
//!
//! All numbers are little-endian, all places in sectors of the size that the superblock tells. The superblock is the
//! first sector: magic (8 bytes), version (8), number of entries (8), bytes of a sector (4). An entry is a sector: the
//! sector of the disk (8), how many (8), flags (8), bytes of a text (8); its data follows, if it is neither a
//! flush nor a discard. Entries stand in the order in which the disk has completed them.
//!
//! C source: `drivers/md/dm-log-writes.c`.

use std::ops::Range;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// What the data of a [mark](Kind::Mark) begins with.
const MARK_BEGIN: &[u8] = b"ondemand mark: ";

/// The bytes of a mark, for direct I/O.
pub const MARK_BYTES: usize = 4096;

/// What happened to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data, at this place of the log.
    Write {
        /// Of the log, in bytes.
        data: Range<usize>,
        /// All that was complete before was flushed first.
        flush: bool,
        /// It was on the medium when it was complete.
        fua: bool,
    },
    /// So many bytes may be forgotten.
    Discard(u64),
    /// All that was complete before is on the medium.
    Flush,
    /// Whoever wrote to the disk has noted something: a write of [`mark`].
    Mark(String),
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// What.
    pub kind: Kind,
}

impl Entry {
    /// Whether all that stands before in the log is on the medium.
    #[must_use]
    pub fn flushes(&self) -> bool {
        matches!(self.kind, Kind::Flush | Kind::Write { flush: true, .. })
    }
}

/// A log.
#[derive(Debug)]
pub struct Log {
    bytes: Vec<u8>,
    /// The bytes of its sectors, which are the smallest units that a disk writes.
    pub sector: usize,
    /// All entries.
    pub entries: Vec<Entry>,
}

impl Log {
    /// Reads a log.
    ///
    /// # Errors
    ///
    /// It is none, or ends too early.
    pub fn new(bytes: Vec<u8>) -> Result<Self> {
        ensure!(
            number(&bytes, 0)? == MAGIC && number(&bytes, 8)? == VERSION,
            "no log of writes"
        );
        let count = number(&bytes, 16)?;
        let sector = usize::try_from(number(&bytes, 24)? & 0xffff_ffff)?;
        ensure!(
            sector.is_power_of_two() && (512..=65536).contains(&sector),
            "sectors of {sector} bytes"
        );
        let mut entries = Vec::new();
        let mut at = sector;
        for index in 0..count {
            let (entry, end) =
                entry(&bytes, at, sector).with_context(|| format!("entry {index} at {at}"))?;
            entries.push(entry);
            at = end;
        }
        Ok(Log {
            bytes,
            sector,
            entries,
        })
    }

    /// What a write has written; nothing of anything else.
    #[must_use]
    pub fn data(&self, index: usize) -> &[u8] {
        match self.entries.get(index).map(|entry| &entry.kind) {
            Some(Kind::Write { data, .. }) => &self.bytes[data.clone()],
            _ => &[],
        }
    }

    /// The last mark before an entry.
    #[must_use]
    pub fn mark_before(&self, index: usize) -> Option<&str> {
        let before = &self.entries[..index.min(self.entries.len())];
        before.iter().rev().find_map(|entry| match &entry.kind {
            Kind::Mark(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The index of the first mark that begins with these words, and what follows them.
    #[must_use]
    pub fn find_mark(&self, words: &str) -> Option<(usize, &str)> {
        let entries = self.entries.iter().enumerate();
        entries
            .into_iter()
            .find_map(|(index, entry)| match &entry.kind {
                Kind::Mark(text) => Some((index, text.strip_prefix(words)?)),
                _ => None,
            })
    }
}

fn number(bytes: &[u8], at: usize) -> Result<u64> {
    let eight = bytes.get(at..).and_then(<[u8]>::first_chunk);
    Ok(u64::from_le_bytes(
        *eight.context("the log ends too early")?,
    ))
}

/// The entry at `at`, and where the next one begins, in bytes.
fn entry(bytes: &[u8], at: usize, sector: usize) -> Result<(Entry, usize)> {
    let field = |index: usize| number(bytes, at + 8 * index);
    let scale = u64::try_from(sector)?;
    let in_bytes = |sectors: u64| sectors.checked_mul(scale).context("too many sectors");
    let (offset, len) = (in_bytes(field(0)?)?, in_bytes(field(1)?)?);
    let (flags, text) = (field(2)?, usize::try_from(field(3)?)?);
    let begin = at + sector;
    let data_end = |len: usize| {
        let end = begin.checked_add(len).context("too long")?;
        ensure!(end <= bytes.len(), "the log ends too early");
        Ok(end)
    };
    let (kind, end) = if flags & DISCARD != 0 {
        (Kind::Discard(len), begin)
    } else if flags & MARK != 0 {
        // The text stands behind the four numbers.
        let words = bytes.get(at + 32..at + 32 + text).context("a mark")?;
        (Kind::Mark(String::from_utf8_lossy(words).into()), begin)
    } else if len == 0 {
        (Kind::Flush, begin)
    } else {
        let end = data_end(usize::try_from(len)?)?;
        let kind = match text_of_mark(&bytes[begin..end]) {
            Some(text) => Kind::Mark(text),
            None => Kind::Write {
                data: begin..end,
                flush: flags & FLUSH != 0,
                fua: flags & FUA != 0,
            },
        };
        (kind, end)
    };
    Ok((Entry { offset, kind }, end))
}

/// What is written to a place that nobody else uses, so that a text stands in the log.
#[must_use]
pub fn mark(text: &str) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    let words = [MARK_BEGIN, text.as_bytes()].concat();
    let len = words.len().min(MARK_BYTES - 1);
    bytes[..len].copy_from_slice(&words[..len]);
    bytes
}

fn text_of_mark(data: &[u8]) -> Option<String> {
    if data.len() != MARK_BYTES {
        return None;
    }
    let words = data.strip_prefix(MARK_BEGIN)?.split(|byte| *byte == 0);
    Some(String::from_utf8_lossy(words.into_iter().next()?).into())
}

/// Logs that tests make.
#[cfg(test)]
pub(crate) mod made {
    use super::*;

    /// A log with sectors of 512 bytes: the sector, the flags and the data of each entry.
    pub(crate) fn log(entries: &[(u64, u64, &[u8])]) -> Log {
        let mut bytes = Vec::new();
        for number in [MAGIC, VERSION, entries.len() as u64, 512] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.resize(512, 0);
        for &(sector, flags, data) in entries {
            let begin = bytes.len();
            for number in [sector, data.len() as u64 / 512, flags, 0] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.resize(begin + 512, 0);
            if flags & DISCARD == 0 {
                bytes.extend(data);
            }
        }
        Log::new(bytes).expect("a log")
    }

    /// A sector full of this.
    pub(crate) fn sector(byte: u8) -> Vec<u8> {
        vec![byte; 512]
    }
}

#[cfg(test)]
mod reading {
    use super::made::sector;
    use super::*;

    #[test]
    fn entries_come_back_as_they_were() {
        let two = [sector(7), sector(8)].concat();
        let log = made::log(&[
            (3, 0, &two),
            (0, FLUSH, &[]),
            (9, FUA, &sector(1)),
            (9, FLUSH | FUA, &sector(2)),
            (64, DISCARD, &two),
            (100, 0, &mark("begin x=1")),
        ]);
        let kinds: Vec<_> = log.entries.iter().map(|entry| &entry.kind).collect();
        assert_eq!((log.entries[0].offset, log.data(0)), (3 * 512, &two[..]));
        assert_eq!(kinds[1], &Kind::Flush);
        assert!(matches!(
            kinds[2],
            Kind::Write {
                flush: false,
                fua: true,
                ..
            }
        ));
        assert!(matches!(
            kinds[3],
            Kind::Write {
                flush: true,
                fua: true,
                ..
            }
        ));
        assert_eq!(log.data(3), sector(2));
        assert_eq!(kinds[4], &Kind::Discard(1024));
        assert_eq!(log.find_mark("begin "), Some((5, "x=1")));
        assert_eq!(log.mark_before(6), Some("begin x=1"));
        assert_eq!(log.mark_before(5), None);
        let flushes: Vec<bool> = log.entries.iter().map(Entry::flushes).collect();
        assert_eq!(flushes, [false, true, false, true, false, false]);
    }

    #[test]
    fn what_is_no_log_is_refused() {
        assert!(Log::new(Vec::new()).is_err());
        assert!(Log::new(vec![0; 4096]).is_err());
        let whole = made::log(&[(0, 0, &sector(1))]).bytes;
        for len in [100, 512, 700, whole.len() - 1] {
            assert!(Log::new(whole[..len].to_vec()).is_err(), "{len} bytes");
        }
    }
}
