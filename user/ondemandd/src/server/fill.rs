// SPDX-License-Identifier: MIT OR Apache-2.0

//! From the source to the cache, held against the manifest on the way.

use std::ops::Range;
use std::time::Instant;

use cachefiles_proto::Read;
use cachefiles_proto::BLOCK_SIZE;
use rustix::io::Errno;
use thiserror::Error;
use tracing::warn;

use super::Server;
use crate::block;
use crate::block::BlockBuffer;
use crate::counters::count;
use crate::manifest::Manifest;
use crate::objects::Object;
use crate::source::ReadError;

/// Why a READ ended without (all of) its data.
#[derive(Debug, Error)]
pub(super) enum FillError {
    #[error("source: {0}")]
    Source(ReadError),
    #[error("the bytes from {0} on do not fit the manifest, nor did they when fetched again")]
    Verify(u64),
    #[error(transparent)]
    Cache(cachefiles_proto::Error),
    #[error("the cache is full: {0}")]
    Full(cachefiles_proto::Error),
    #[error("what is in use is of another version")]
    Sealed,
    #[error("the kernel asks from {0} on, which is no multiple of a block")]
    Unaligned(u64),
}

/// Whose turn it is, if the source's bandwidth is limited.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    /// It is waited for.
    Wait,
    /// It has been taken.
    Taken,
}

impl Server {
    /// Copies the range of a READ from source to cache. Returns the bytes written.
    pub(super) fn fill(
        &self,
        object: &Object,
        range: Range<u64>,
        buffer: &mut BlockBuffer,
    ) -> Result<u64, FillError> {
        let buffer = buffer.bytes_mut();
        let mut written = 0;
        let mut at = range.start;
        // A file is read twice sooner than it is asked who else reads it.
        let flight = object.blob.as_remote().map(|blob| {
            let patience = blob.limits().one_try();
            blob.flights().begin(range.clone(), patience)
        });
        let has_waited = flight.as_ref().is_some_and(|flight| flight.has_waited());
        if flight.is_some() && object.pattern.is_some() && !has_waited {
            // It may have been read ahead after the READ was sent.
            at = next_hole(object, range.clone()).start;
        }
        while at < range.end {
            let mut end = range.end;
            if has_waited {
                let hole = next_hole(object, at..range.end);
                (at, end) = (hole.start, hole.end);
            }
            let want = to_usize(end - at).min(buffer.len());
            if want == 0 {
                break;
            }
            self.fetch(object, &mut buffer[..want], at, Turn::Wait)?;
            self.store(object, &buffer[..want], at)?;
            count(&self.counters.bytes, to_u64(want));
            written += to_u64(want);
            at += to_u64(want);
        }
        Ok(written)
    }

    /// Gets whole blocks or chunks from the source, padded with zeros behind the object's last byte.
    pub(super) fn fetch(
        &self,
        object: &Object,
        buffer: &mut [u8],
        at: u64,
        turn: Turn,
    ) -> Result<(), FillError> {
        let have = to_usize(object.blob.size().saturating_sub(at)).min(buffer.len());
        let (data, padding) = buffer.split_at_mut(have);
        let got = match (turn, object.blob.as_remote()) {
            (Turn::Taken, Some(blob)) => blob.read_in_turn(data, at),
            _ => object.blob.read_at(data, at),
        };
        got.map_err(FillError::Source)?;
        if let Some(manifest) = &object.manifest {
            self.verify(object, manifest, data, at)?;
        }
        padding.fill(0);
        Ok(())
    }

    /// Holds whole chunks against the manifest. One that does not fit is fetched once more.
    fn verify(
        &self,
        object: &Object,
        manifest: &Manifest,
        data: &mut [u8],
        at: u64,
    ) -> Result<(), FillError> {
        let len = usize::try_from(manifest.chunk()).unwrap_or(usize::MAX);
        let mut at = at;
        for chunk in data.chunks_mut(len) {
            if !manifest.fits(at, chunk) {
                count(&self.counters.bad_chunks, 1);
                warn!(
                    name = object.name,
                    offset = at,
                    "does not fit the manifest: fetched again"
                );
                object.blob.read_at(chunk, at).map_err(FillError::Source)?;
                if !manifest.fits(at, chunk) {
                    return Err(FillError::Verify(at));
                }
            }
            at += to_u64(chunk.len());
        }
        Ok(())
    }

    /// Writes into the cache. One that is full is given a while to be culled.
    fn store(&self, object: &Object, data: &[u8], at: u64) -> Result<(), FillError> {
        let mut tries = self.patience.tries();
        loop {
            let error = match object.file.write_all_at(data, at) {
                Ok(()) => {
                    count(
                        &self.counters.fills_that_waited,
                        u64::from(tries.has_waited()),
                    );
                    tries.done();
                    return Ok(());
                }
                Err(error) => error,
            };
            if !is_full(object, &error) {
                return Err(FillError::Cache(error));
            }
            match tries.pause(Instant::now()) {
                Some(pause) => std::thread::sleep(pause),
                None => return Err(FillError::Full(error)),
            }
        }
    }
}

/// What is to be written for a READ: whole blocks, and nothing beyond the block that holds the object's last
/// byte. With a manifest it is whole chunks, since no less can be held against it.
pub(super) fn range_of(object: &Object, read: Read) -> Result<Range<u64>, FillError> {
    let block = to_u64(BLOCK_SIZE);
    if !read.off.is_multiple_of(block) {
        return Err(FillError::Unaligned(read.off));
    }
    let size = object.blob.size();
    // The numbers are the kernel's: nothing here may overflow. A file's size always has room
    // for one more block.
    let end = read.off.saturating_add(read.len).min(size);
    let whole_blocks = |end| block::round_up(end).unwrap_or(u64::MAX - (block - 1));
    let Some(manifest) = &object.manifest else {
        return Ok(read.off..whole_blocks(end));
    };
    let chunk = u64::from(manifest.chunk());
    let start = read.off - read.off % chunk;
    if read.off >= end {
        return Ok(start..start);
    }
    let end = end
        .checked_next_multiple_of(chunk)
        .unwrap_or(size)
        .min(size);
    Ok(start..whole_blocks(end))
}

/// The first part of a range that the cache does not hold; empty, at its end, if it holds all. With a manifest
/// it is whole chunks.
pub(super) fn next_hole(object: &Object, range: Range<u64>) -> Range<u64> {
    // A file that cannot be searched is taken for empty: to fetch twice does no harm.
    let start = match object.file.seek_hole(range.start) {
        Ok(Some(hole)) if hole >= range.start => hole.min(range.end),
        Ok(_) | Err(_) => range.start,
    };
    // Data where the hole was: it has been written meanwhile, and what comes behind it is not known.
    let end = match object.file.seek_data(start) {
        Ok(Some(data)) if data > start => data.min(range.end),
        Ok(_) | Err(_) => range.end,
    };
    let Some(manifest) = &object.manifest else {
        return start..end.max(start);
    };
    if start >= range.end {
        return range.end..range.end;
    }
    let chunk = u64::from(manifest.chunk());
    let start = (start - start % chunk).max(range.start);
    let end = end.max(start + 1).checked_next_multiple_of(chunk);
    start..end.unwrap_or(range.end).min(range.end)
}

/// Whether a write has failed for want of space. The kernel says ENOBUFS below the *stop* marks, and
/// also for an object that was withdrawn; that one cannot be searched either.
pub(super) fn is_full(object: &Object, error: &cachefiles_proto::Error) -> bool {
    match error.errno() {
        Some(Errno::NOSPC | Errno::DQUOT) => true,
        Some(Errno::NOBUFS) => match object.file.seek_hole(0) {
            Ok(_) => true,
            Err(error) => error.errno() != Some(Errno::NOBUFS),
        },
        _ => false,
    }
}

/// A length of memory as a number of bytes in a file.
pub(super) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).expect("memory is smaller than 2^64 bytes")
}

/// A number of bytes in a file as a length of memory, cut to what memory can have.
pub(super) fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
