// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading ahead: what [`Pattern`] says that readers will want next is fetched in parts, by threads that have
//! nothing better to do.
//!
//! A READ that wants what a part is fetching waits for it rather than fetch it again. So a part is no longer
//! than the READ that it follows, which would have waited for as many bytes of its own, or 256 KiB: a second
//! at 2 Mbit/s. Shorter ones would cost a server more requests, longer ones leave connections idle that could
//! share the work.
//!
//! Nobody waits for a part, so nothing that goes wrong with it is anybody's error. If it matters, it goes wrong
//! again with a READ.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use cachefiles_proto::Read;
use cachefiles_proto::BLOCK_SIZE;
use tracing::debug;

use super::fill::is_full;
use super::fill::next_hole;
use super::fill::range_of;
use super::fill::to_u64;
use super::fill::to_usize;
use super::fill::FillError;
use super::fill::Turn;
use super::Server;
use crate::block;
use crate::block::BlockBuffer;
use crate::counters::count;
use crate::manifest::Manifest;
use crate::objects::Object;
use crate::pool::Ahead;
use crate::pool::Job;
use crate::pool::Queue;
use crate::source::ahead::Pattern;
use crate::source::Blob;

/// The shortest part, in bytes, but for the end of what is read ahead.
const SHORTEST_PART: u64 = 256 << 10;
/// The longest part, in bytes: what a thread has memory for, and a chunk of the largest size.
const LONGEST_PART: u64 = 1 << 20;

/// How long nothing is read ahead after the cache was found full.
const REST: Duration = Duration::from_secs(10);

/// When nothing is read ahead, since the cache is full; shared by all threads.
#[derive(Debug, Default)]
pub struct Rest {
    until: Mutex<Option<Instant>>,
}

/// The pattern of a blob's readers, if anything is to be read ahead for them: files are near enough.
pub(super) fn pattern_of(blob: &Blob, manifest: Option<&Manifest>) -> Option<Mutex<Pattern>> {
    let most = blob.as_remote()?.limits().read_ahead()?;
    let block = to_u64(BLOCK_SIZE);
    let unit = manifest.map_or(block, |manifest| u64::from(manifest.chunk()));
    let end = block::round_up(blob.size()).unwrap_or(u64::MAX - (block - 1));
    Some(Mutex::new(Pattern::new(most.get(), unit, end)))
}

impl Server {
    /// Notes a READ, and queues what is to be read ahead after it.
    pub(super) fn plan_ahead(&self, object: &Arc<Object>, read: Read, queue: &Queue) {
        let Some(pattern) = &object.pattern else {
            return;
        };
        // What is wrong with a READ is told when it is answered.
        let Ok(read) = range_of(object, read) else {
            return;
        };
        let Some(range) = lock(pattern).note(&read) else {
            return;
        };
        if self.rest.is_on(Instant::now()) {
            return;
        }
        let part = part_of(read.end - read.start, object.manifest.as_ref());
        let mut at = range.start;
        while at < range.end {
            let end = at.saturating_add(part).min(range.end);
            queue.push(Job::Ahead(Ahead {
                object: Arc::downgrade(object),
                range: at..end,
            }));
            at = end;
        }
    }

    /// Fetches a part that nobody has asked for, as far as the cache does not hold it.
    pub(super) fn read_ahead(&self, ahead: Ahead, buffer: &mut BlockBuffer) {
        let object = ahead.object.upgrade();
        let Some(object) = object.filter(|object| self.objects.is_open(object)) else {
            return;
        };
        let Some(queue) = self.pools.of(object.source) else {
            return;
        };
        if self.rest.is_on(Instant::now()) {
            return;
        }
        let error = match self.fill_ahead(&object, &ahead, buffer, queue) {
            Ok(()) => return,
            Err(error) => error,
        };
        debug!(name = object.name, range = ?ahead.range, %error, "not read ahead");
        if matches!(error, FillError::Full(_)) {
            self.rest.begin(Instant::now());
            queue.drop_aheads(|_| true);
        } else {
            count(&self.counters.ahead_errors, 1);
            let object = Arc::downgrade(&object);
            queue.drop_aheads(|other| other.object.ptr_eq(&object));
        }
        if let Some(pattern) = &object.pattern {
            lock(pattern).forget();
        }
    }

    fn fill_ahead(
        &self,
        object: &Object,
        ahead: &Ahead,
        buffer: &mut BlockBuffer,
        queue: &Queue,
    ) -> Result<(), FillError> {
        let Some(blob) = object.blob.as_remote() else {
            return Ok(());
        };
        let Some(flight) = blob.flights().begin_ahead(ahead.range.clone()) else {
            return Ok(());
        };
        let range = flight.range();
        let buffer = buffer.bytes_mut();
        let mut at = range.start;
        loop {
            let hole = next_hole(object, at..range.end);
            let want = to_usize(hole.end - hole.start).min(buffer.len());
            if want == 0 {
                return Ok(());
            }
            at = hole.start;
            if let Err(until) = blob.turn_if_free(to_u64(want)) {
                let rest = Ahead {
                    object: ahead.object.clone(),
                    range: at..range.end,
                };
                queue.put_off(rest, until);
                return Ok(());
            }
            count(&self.counters.ahead_requests, 1);
            let data = &mut buffer[..want];
            self.fetch(object, data, at, Turn::Taken)?;
            // A cache that is full is not waited for: readers come first.
            object
                .file
                .write_all_at(data, at)
                .map_err(|error| match is_full(object, &error) {
                    true => FillError::Full(error),
                    false => FillError::Cache(error),
                })?;
            count(&self.counters.bytes, to_u64(want));
            count(&self.counters.ahead_bytes, to_u64(want));
            at += to_u64(want);
        }
    }
}

/// How long a part is, in bytes, for a READ of `read` bytes: a power of two, and whole chunks.
fn part_of(read: u64, manifest: Option<&Manifest>) -> u64 {
    let part = read.checked_next_power_of_two().unwrap_or(LONGEST_PART);
    let part = part.clamp(SHORTEST_PART, LONGEST_PART);
    // Chunks are powers of two as well.
    manifest.map_or(part, |manifest| part.max(u64::from(manifest.chunk())))
}

impl Rest {
    fn begin(&self, now: Instant) {
        *lock(&self.until) = Some(now + REST);
    }

    fn is_on(&self, now: Instant) -> bool {
        lock(&self.until).is_some_and(|until| now < until)
    }
}

/// Nobody panics while holding one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
