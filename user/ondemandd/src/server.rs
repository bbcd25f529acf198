// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is done with a message: OPEN, READ, CLOSE.
//!
//! A READ may arrive in another thread than the OPEN of its object, so an object is registered
//! before its OPEN is answered. What it is answered depends on which version the cache has data of, see `admit`. Nothing that goes wrong with one message ends the worker: the
//! kernel is told, the log is told, the next message is read.

mod admit;
mod ahead;
mod fill;

use std::sync::Arc;
use std::time::Instant;

use cachefiles_proto::Close;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Message;
use cachefiles_proto::Open;
use cachefiles_proto::OpenAnswer;
use cachefiles_proto::Read;
use rustix::io::Errno;
use tracing::debug;
use tracing::info;
use tracing::warn;

pub use self::admit::opening_of;
use self::admit::Known;
pub use self::admit::MakeStale;
pub use self::admit::Versions;
pub use self::ahead::Rest;
use self::fill::range_of;
use self::fill::FillError;
use crate::block::BlockBuffer;
use crate::counters::count;
use crate::counters::Counters;
use crate::objects::Object;
use crate::objects::Objects;
use crate::patience::Patience;
use crate::pool::Job;
use crate::pool::Pools;
use crate::record::judge::Guard;
use crate::record::Name;
use crate::source::names::Sources;
use crate::source::Found;
use crate::source::LookupError;
use crate::source::ReadError;

/// Everything that answers messages; shared by all threads.
pub struct Server {
    /// Where messages come from and commands go.
    pub device: Device,
    /// Where data comes from.
    pub sources: Sources,
    /// Who waits for it, if it comes from afar.
    pub pools: Pools,
    /// What is open.
    pub objects: Objects,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What is waited for when the cache is full.
    pub patience: Patience,
    /// When nothing is read ahead, since the cache is full.
    pub rest: Rest,
    /// Which versions the cache has data of.
    pub versions: Versions,
}

impl Server {
    /// Answers one message, or has it answered if that may take time. `buffer` is that of the thread: whole
    /// blocks, and at least one; with manifests, at least a chunk of the largest size.
    pub fn answer(&self, message: Message, buffer: &mut BlockBuffer) {
        match message {
            Message::Open(open) => {
                let now = self.begin();
                let source = self.sources.find(&open.cookie_key);
                match source.map(|(index, ..)| self.pools.of(index)) {
                    Ok(Some(queue)) => queue.push(Job::Open(open, now)),
                    Ok(None) | Err(_) => self.work(Job::Open(open, now), buffer),
                }
            }
            Message::Read(read) => {
                let Some(object) = self.objects.get(read.object_id) else {
                    count(&self.counters.strays, 1);
                    warn!(?read, "READ of an unknown object");
                    return;
                };
                let now = self.begin();
                let queue = self.pools.of(object.source);
                let job = Job::Read(Arc::clone(&object), read, now);
                match queue {
                    Some(queue) => {
                        queue.push(job);
                        self.plan_ahead(&object, read, queue);
                    }
                    None => self.work(job, buffer),
                }
            }
            Message::Close(close) => self.close(close),
        }
    }

    /// Does what a queue has kept.
    pub fn work(&self, job: Job, buffer: &mut BlockBuffer) {
        let began = match job {
            Job::Open(open, began) => {
                self.open(open);
                began
            }
            Job::Read(object, read, began) => {
                self.read(&object, read, buffer);
                began
            }
            // Nobody has asked for it, so there is nothing to answer.
            Job::Ahead(ahead) => return self.read_ahead(ahead, buffer),
        };
        self.counters.note_end(began.elapsed());
    }

    /// Notes that a request has come.
    fn begin(&self) -> Instant {
        count(&self.counters.requests_begun, 1);
        Instant::now()
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
        let key = Name::of(&open.volume_key, &open.cookie_key);
        let found = self.look_up(&open, &key);
        let admitted = found.and_then(|(source, found, known)| {
            let sealed = self.admit(&open.file, &key, &found, &known)?;
            Ok((source, found, known, sealed))
        });
        let (source, found, known, sealed) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                // The kernel's order: first the descriptor, then the answer.
                drop(open.file);
                count(&self.counters.refused, 1);
                self.send_copen(msg_id, OpenAnswer::Error(error.errno()));
                match &error {
                    LookupError::Changed(change) => self.note_change(&key, &name, change),
                    error => warn!(name, %volume, %error, "OPEN refused"),
                }
                return;
            }
        };
        let Found {
            blob,
            manifest,
            identity,
        } = found;
        let size = sealed.unwrap_or(blob.size());
        let verified = manifest.is_some();
        let pattern = match sealed {
            Some(_) => None,
            None => ahead::pattern_of(&blob, manifest.as_ref()),
        };
        let object = Object {
            id: object_id,
            file: open.file,
            blob,
            manifest,
            source,
            name,
            key,
            pattern,
            sealed: sealed.is_some(),
        };
        let object = Arc::new(object);
        self.objects.insert(object_id, Arc::clone(&object));
        let answer = match self.versions.guard {
            Guard::Kernel => OpenAnswer::Version {
                size,
                token: identity.token,
            },
            Guard::Record => OpenAnswer::Size(size),
        };
        match self.device.send(&Command::Copen { msg_id, answer }) {
            Ok(()) => {
                count(&self.counters.opens, 1);
                let again = known.entry.is_some();
                count(&self.counters.reopens, u64::from(again));
                info!(name = object.name, %volume, object_id, size, again, verified, version = identity.what, "OPEN");
                match object.sealed {
                    true => {
                        let change = known.change(&identity);
                        self.note_change(&object.key, &object.name, &change);
                    }
                    false => self.note_same(&object.key, &known),
                }
            }
            Err(error) => {
                // Whoever wanted the object is gone, or what is mounted is of another version.
                self.objects.remove(object_id);
                if error.errno() == Some(Errno::STALE) {
                    let change = known.change(&identity);
                    self.note_change(&object.key, &object.name, &change);
                } else {
                    count(&self.counters.kernel_errors, 1);
                    warn!(msg_id, %error, "OPEN not answered");
                }
            }
        }
    }

    /// Finds the blob of an OPEN, which source it is of, and what was known of it.
    fn look_up(&self, open: &Open, key: &Name) -> Result<(usize, Found, Known), LookupError> {
        let (index, source, rest) = self.sources.find(&open.cookie_key)?;
        let known = self.versions.known(key)?;
        let found = source.open(rest, known.had_manifest())?;
        Ok((index, found, known))
    }

    fn send_copen(&self, msg_id: u32, answer: OpenAnswer) {
        if let Err(error) = self.device.send(&Command::Copen { msg_id, answer }) {
            count(&self.counters.kernel_errors, 1);
            warn!(msg_id, %error, "OPEN not answered");
        }
    }

    fn read(&self, object: &Object, read: Read, buffer: &mut BlockBuffer) {
        let filled = match object.sealed {
            true => Err(FillError::Sealed),
            false => range_of(object, read).and_then(|range| self.fill(object, range, buffer)),
        };
        match filled {
            Ok(written) => debug!(name = object.name, ?read, written, "READ"),
            Err(error) => self.note_failure(object, read, &error),
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
            FillError::Source(error) => {
                count(&self.counters.source_errors, 1);
                match error {
                    ReadError::Changed(change) => self.note_change(&object.key, name, change),
                    ReadError::Shrunk(_) => {
                        self.note_change(&object.key, name, &error.to_string());
                    }
                    error => warn!(name, ?read, %error, "READ failed"),
                }
                return;
            }
            FillError::Sealed => {
                count(&self.counters.source_errors, 1);
                debug!(name, ?read, "READ of what has changed");
                return;
            }
            FillError::Verify(_) => &self.counters.verify_errors,
            FillError::Cache(_) | FillError::Unaligned(_) => &self.counters.kernel_errors,
        };
        count(number, 1);
        warn!(name, ?read, %error, "READ failed");
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

#[cfg(test)]
mod tests;
