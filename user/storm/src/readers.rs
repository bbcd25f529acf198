// SPDX-License-Identifier: MIT OR Apache-2.0

//! The readers: each takes the next part of the next file and compares its
//! hash with the source's.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::contents::{hash_range, Contents, Entry, PART_BYTES};
use crate::gaps::Gaps;

/// The readers' nice value: less of the processors than the daemon gets, and less than who mounts.
const PRIORITY: i32 = 10;

/// One mounted image and what must be in it.
pub(crate) struct Image {
    /// The file system id it is mounted by.
    pub(crate) name: String,
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// What it must contain.
    pub(crate) contents: Contents,
}

/// One part of one file that is to be read.
struct Work {
    path: PathBuf,
    offset: u64,
    length: u64,
    sha256: String,
    last_of_file: bool,
}

/// What one reader is doing, for the watchdog.
pub(crate) struct Reader {
    /// Its thread id, 0 before it runs.
    pub(crate) tid: AtomicI32,
    /// Milliseconds after the start at which it last got bytes; `u64::MAX` once
    /// it has finished.
    pub(crate) progress_ms: AtomicU64,
    /// The path that it is reading.
    pub(crate) path: Mutex<PathBuf>,
    /// The times between two moments at which it got bytes, or from the opening of a file to the
    /// first ones.
    pub(crate) gaps: Mutex<Gaps>,
    /// Bytes that it got.
    pub(crate) bytes: AtomicU64,
}

/// What all readers share.
pub(crate) struct Pass {
    work: Vec<Work>,
    next: AtomicUsize,
    start: Instant,
    /// Files whose last part was read.
    pub(crate) files: AtomicU64,
    /// Bytes that were read and compared.
    pub(crate) bytes: AtomicU64,
    /// What went wrong, in the order in which it did.
    pub(crate) errors: Mutex<Vec<String>>,
    /// Set when the readers are to stop early.
    pub(crate) stop: AtomicBool,
    /// One for each thread.
    pub(crate) readers: Vec<Reader>,
}

impl Pass {
    /// Everything in `images`, in an order that follows from `seed`.
    pub(crate) fn new(images: &[Image], readers: usize, seed: u64) -> Result<Arc<Self>> {
        let mut work = Vec::new();
        for image in images {
            for (path, entry) in &image.contents.entries {
                let Entry::File { size, parts } = entry else {
                    continue;
                };
                let mut offset = 0;
                for (i, sha256) in parts.iter().enumerate() {
                    let length = PART_BYTES.min(size - offset);
                    work.push(Work {
                        path: image.mount.join(path),
                        offset,
                        length,
                        sha256: sha256.clone(),
                        last_of_file: i + 1 == parts.len(),
                    });
                    offset += length;
                }
            }
        }
        work.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let idle = || {
            Ok(Reader {
                tid: AtomicI32::new(0),
                progress_ms: AtomicU64::new(0),
                path: Mutex::new(PathBuf::new()),
                gaps: Mutex::new(Gaps::new()?),
                bytes: AtomicU64::new(0),
            })
        };
        Ok(Arc::new(Self {
            work,
            next: AtomicUsize::new(0),
            start: Instant::now(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
            readers: (0..readers).map(|_| idle()).collect::<Result<_>>()?,
        }))
    }

    /// Starts the readers.
    pub(crate) fn start(self: &Arc<Self>, seed: u64) -> Vec<JoinHandle<()>> {
        (0..self.readers.len())
            .map(|i| {
                let pass = Arc::clone(self);
                thread::spawn(move || pass.read_all(i, seed))
            })
            .collect()
    }

    /// Milliseconds since the pass was made.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn read_all(&self, index: usize, seed: u64) {
        let me = &self.readers[index];
        // Of a whole machine full of readers a worker would get the time to start only now and then.
        if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
            self.errors.lock().unwrap().push(format!("nice: {error}"));
        }
        me.tid.store(
            rustix::thread::gettid().as_raw_nonzero().get(),
            Ordering::Relaxed,
        );
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (0x5eed << index));
        while !self.stop.load(Ordering::Relaxed) {
            let Some(work) = self.work.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            me.path.lock().unwrap().clone_from(&work.path);
            me.progress_ms.store(self.now_ms(), Ordering::Relaxed);
            let chunk = 4096 << rng.random_range(0..=8);
            if let Err(error) = self.read_part(me, work, chunk) {
                let text = format!("{} at {}: {error:#}", work.path.display(), work.offset);
                self.errors.lock().unwrap().push(text);
            } else if work.last_of_file {
                self.files.fetch_add(1, Ordering::Relaxed);
            }
        }
        me.progress_ms.store(u64::MAX, Ordering::Relaxed);
    }

    fn read_part(&self, me: &Reader, work: &Work, chunk: usize) -> Result<()> {
        let mut last = Instant::now();
        let file = File::open(&work.path).context("open")?;
        let found = hash_range(&file, work.offset, work.length, chunk, &mut |bytes| {
            let now = Instant::now();
            me.gaps.lock().unwrap().record(now - last);
            last = now;
            me.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            me.progress_ms.store(self.now_ms(), Ordering::Relaxed);
        })?;
        anyhow::ensure!(
            found == work.sha256,
            "the bytes differ from the source: SHA-256 {found}, expected {}",
            work.sha256
        );
        Ok(())
    }
}
