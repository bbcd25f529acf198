// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is done with a message: OPEN, READ, CLOSE.
//!
//! A READ may arrive in another thread than the OPEN of its object, so an object is registered
//! before its OPEN is answered. Nothing that goes wrong with one message ends the worker: the
//! kernel is told, the log is told, the next message is read.

use std::sync::Arc;
use std::time::Instant;

use cachefiles_proto::Close;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Message;
use cachefiles_proto::Open;
use cachefiles_proto::OpenAnswer;
use cachefiles_proto::Read;
use cachefiles_proto::BLOCK_SIZE;
use rustix::io::Errno;
use thiserror::Error;
use tracing::debug;
use tracing::info;
use tracing::warn;

use crate::block;
use crate::block::BlockBuffer;
use crate::counters::count;
use crate::counters::Counters;
use crate::objects::Object;
use crate::objects::Objects;
use crate::patience::Patience;
use crate::source::ReadError;
use crate::source::Source;

/// Everything that answers messages; shared by all threads.
pub struct Server {
    /// Where messages come from and commands go.
    pub device: Device,
    /// Where data comes from.
    pub source: Source,
    /// What is open.
    pub objects: Objects,
    /// What is counted.
    pub counters: Counters,
    /// What is waited for when the cache is full.
    pub patience: Patience,
}

/// Why a READ ended without (all of) its data.
#[derive(Debug, Error)]
enum FillError {
    #[error("source: {0}")]
    Source(ReadError),
    #[error(transparent)]
    Cache(cachefiles_proto::Error),
    #[error("the cache is full: {0}")]
    Full(cachefiles_proto::Error),
    #[error("the kernel asks from {0} on, which is no multiple of a block")]
    Unaligned(u64),
}

impl Server {
    /// Answers one message. `buffer` holds at least one block and belongs to the thread.
    pub fn answer(&self, message: Message, buffer: &mut BlockBuffer) {
        match message {
            Message::Open(open) => self.open(open),
            Message::Read(read) => self.read(read, buffer),
            Message::Close(close) => self.close(close),
        }
    }

    fn open(&self, open: Open) {
        let Open {
            msg_id, object_id, ..
        } = open;
        let name = open.cookie_key.escape_ascii().to_string();
        let volume = open.volume_key.escape_ascii();
        if let Err(error) = open.file.set_close_on_exec() {
            warn!(name, %error, "the kernel would let other programs inherit this object");
        }
        let blob = match self.source.lookup(&open.cookie_key) {
            Ok(blob) => blob,
            Err(error) => {
                warn!(name, %volume, %error, "OPEN refused");
                // The kernel's order: first the descriptor, then the answer.
                drop(open.file);
                count(&self.counters.refused, 1);
                self.send_copen(msg_id, OpenAnswer::Error(error.errno()));
                return;
            }
        };
        let size = blob.size();
        let object = Object {
            file: open.file,
            blob,
            name,
        };
        let object = Arc::new(object);
        self.objects.insert(object_id, Arc::clone(&object));
        if self.send_copen(msg_id, OpenAnswer::Size(size)) {
            count(&self.counters.opens, 1);
            let again = self.counters.note_open(&open.volume_key, &open.cookie_key);
            count(&self.counters.reopens, u64::from(again));
            info!(name = object.name, %volume, object_id, size, again, "OPEN");
        } else {
            // Whoever wanted the object is gone, or the kernel does not like its size.
            self.objects.remove(object_id);
        }
    }

    fn send_copen(&self, msg_id: u32, answer: OpenAnswer) -> bool {
        match self.device.send(&Command::Copen { msg_id, answer }) {
            Ok(()) => true,
            Err(error) => {
                count(&self.counters.kernel_errors, 1);
                warn!(msg_id, %error, "OPEN not answered");
                false
            }
        }
    }

    fn read(&self, read: Read, buffer: &mut BlockBuffer) {
        let Some(object) = self.objects.get(read.object_id) else {
            count(&self.counters.strays, 1);
            warn!(?read, "READ of an unknown object");
            return;
        };
        match self.fill(&object, read, buffer) {
            Ok(written) => debug!(name = object.name, ?read, written, "READ"),
            Err(error) => self.note_failure(&object, read, &error),
        }
        // Without data the kernel finds the hole still there, and fails the reader.
        match object.file.read_complete(read.msg_id) {
            Ok(()) => count(&self.counters.reads, 1),
            // Its reader was killed: nobody waits any more.
            Err(error) if error.errno() == Some(Errno::INVAL) => {
                count(&self.counters.kernel_errors, 1);
                debug!(name = object.name, %error, "READ is gone");
            }
            Err(error) => {
                count(&self.counters.kernel_errors, 1);
                warn!(name = object.name, %error, "READ not completed");
            }
        }
    }

    fn note_failure(&self, object: &Object, read: Read, error: &FillError) {
        let name = &object.name;
        let number = match error {
            FillError::Full(error) => {
                count(&self.counters.fills_without_space, 1);
                debug!(name, ?read, %error, "READ without space");
                // One that is full is full for all: a line for each would be a flood.
                if let Some(reads) = self.patience.given_up(Instant::now()) {
                    warn!(reads, %error, "the cache is full: READs ended without data");
                }
                return;
            }
            FillError::Source(_) => &self.counters.source_errors,
            FillError::Cache(_) | FillError::Unaligned(_) => &self.counters.kernel_errors,
        };
        count(number, 1);
        warn!(name, ?read, %error, "READ failed");
    }

    /// Copies the range from source to cache: whole blocks, the last one padded with zeros, and
    /// nothing beyond the block that holds the object's last byte. Returns the bytes written.
    fn fill(
        &self,
        object: &Object,
        read: Read,
        buffer: &mut BlockBuffer,
    ) -> Result<u64, FillError> {
        let size = object.blob.size();
        let block = to_u64(BLOCK_SIZE);
        if read.off % block != 0 {
            return Err(FillError::Unaligned(read.off));
        }
        // The numbers are the kernel's: nothing here may overflow. A file's size always has room
        // for one more block.
        let end = read.off.saturating_add(read.len).min(size);
        let end = block::round_up(end).unwrap_or(u64::MAX - (block - 1));
        let buffer = buffer.bytes_mut();
        let mut at = read.off;
        while at < end {
            let want = to_usize(end - at).min(buffer.len());
            let have = to_usize(size.saturating_sub(at)).min(want);
            let (data, padding) = buffer[..want].split_at_mut(have);
            object.blob.read_at(data, at).map_err(FillError::Source)?;
            padding.fill(0);
            self.store(object, &buffer[..want], at)?;
            count(&self.counters.bytes, to_u64(want));
            at += to_u64(want);
        }
        Ok(at - read.off)
    }

    /// Writes into the cache. One that is full is given a while to be culled. Nothing is ever written
    /// that was not asked for, so there is no less to try with.
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

    fn close(&self, close: Close) {
        count(&self.counters.closes, 1);
        match self.objects.remove(close.object_id) {
            Some(object) => info!(name = object.name, object_id = close.object_id, "CLOSE"),
            None => {
                count(&self.counters.strays, 1);
                debug!(?close, "CLOSE of an unknown object");
            }
        }
    }
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

#[cfg(test)]
mod tests;
