// SPDX-License-Identifier: MIT OR Apache-2.0

//! A READ: from the source to the cache, held against the manifest on the way.

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
    #[error("the kernel asks from {0} on, which is no multiple of a block")]
    Unaligned(u64),
}

impl Server {
    /// Copies the range from source to cache: whole blocks, the last one padded with zeros, and
    /// nothing beyond the block that holds the object's last byte. With a manifest the range is whole
    /// chunks, since no less can be held against it. Returns the bytes written.
    pub(super) fn fill(
        &self,
        object: &Object,
        read: Read,
        buffer: &mut BlockBuffer,
    ) -> Result<u64, FillError> {
        let range = range_of(object, read)?;
        let buffer = buffer.bytes_mut();
        let mut written = 0;
        let mut at = range.start;
        // A file is read twice sooner than it is asked who else reads it.
        let flight = object
            .blob
            .as_remote()
            .map(|blob| blob.flights().begin(range.clone()));
        let has_waited = flight.as_ref().is_some_and(|flight| flight.has_waited());
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
            let have = to_usize(object.blob.size().saturating_sub(at)).min(want);
            let (data, padding) = buffer[..want].split_at_mut(have);
            object.blob.read_at(data, at).map_err(FillError::Source)?;
            if let Some(manifest) = &object.manifest {
                self.verify(object, manifest, data, at)?;
            }
            padding.fill(0);
            self.store(object, &buffer[..want], at)?;
            count(&self.counters.bytes, to_u64(want));
            written += to_u64(want);
            at += to_u64(want);
        }
        Ok(written)
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

/// What is to be written for a READ: whole blocks, or whole chunks.
fn range_of(object: &Object, read: Read) -> Result<Range<u64>, FillError> {
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
fn next_hole(object: &Object, range: Range<u64>) -> Range<u64> {
    // A file that cannot be searched is taken for empty: to fetch twice does no harm.
    let start = match object.file.seek_hole(range.start) {
        Ok(Some(hole)) => hole.min(range.end),
        Ok(None) | Err(_) => range.start,
    };
    let end = match object.file.seek_data(start) {
        Ok(Some(data)) => data.min(range.end),
        Ok(None) | Err(_) => range.end,
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
fn is_full(object: &Object, error: &cachefiles_proto::Error) -> bool {
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
fn to_u64(len: usize) -> u64 {
    u64::try_from(len).expect("memory is smaller than 2^64 bytes")
}

/// A number of bytes in a file as a length of memory, cut to what memory can have.
fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
