// SPDX-License-Identifier: MIT OR Apache-2.0

//! A slot: one image that is mounted, read and unmounted again and again, each
//! time under a name that the cache has not seen, so that the daemon is asked
//! for all of it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::mount::{unmount, UnmountFlags};

use crate::deadline::within;
use crate::gaps::Gaps;
use crate::readers::{Image, Pass};
use crate::run::mount_image;
use crate::watch;

/// One round in so many is followed by another one with the same names: what is
/// stored is read as well.
const AGAIN_ONE_IN: u64 = 4;

/// What all slots share.
#[derive(Default)]
pub(crate) struct Shared {
    /// The slots end when it is set.
    pub(crate) stop: AtomicBool,
    /// Rounds that were read to their end.
    pub(crate) rounds: AtomicU64,
    /// Files of which every byte was compared.
    pub(crate) files: AtomicU64,
    /// Bytes that were read in rounds that are over.
    pub(crate) bytes: AtomicU64,
    /// What went wrong.
    pub(crate) errors: Mutex<Vec<String>>,
}

impl Shared {
    /// Notes an error, and ends the storm.
    pub(crate) fn fail(&self, what: String) {
        self.errors.lock().unwrap().push(what);
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One image and its readers.
pub(crate) struct Slot {
    /// What is read, and where it is mounted.
    pub(crate) image: Arc<Image>,
    /// The directory with the image's file.
    pub(crate) source: PathBuf,
    /// Whether it is mounted in a domain, which it then shares with the slots
    /// that are in the same round.
    pub(crate) in_domain: bool,
    /// How many threads read it.
    pub(crate) readers: usize,
    /// Seconds that a reader may be without a byte, on the reference machine.
    pub(crate) stall: u64,
    /// Seconds for a mount, a listing, an unmount, on the reference machine.
    pub(crate) deadline: u64,
    /// What the order of the reads follows from.
    pub(crate) seed: u64,
}

/// What one reader of a slot saw.
pub(crate) struct Seen {
    /// The times between two moments at which it got bytes.
    pub(crate) gaps: Gaps,
    /// Bytes that it got.
    pub(crate) bytes: u64,
}

/// What a slot saw.
pub(crate) struct Tally {
    /// Each reader.
    pub(crate) readers: Vec<Seen>,
    /// How long mounting took.
    pub(crate) mounts: Gaps,
}

impl Slot {
    /// Goes round in a thread of its own until told to stop.
    pub(crate) fn start(self, shared: Arc<Shared>) -> JoinHandle<Result<Tally>> {
        thread::spawn(move || {
            let nothing = || {
                Ok(Seen {
                    gaps: Gaps::new()?,
                    bytes: 0,
                })
            };
            let mut tally = Tally {
                readers: (0..self.readers)
                    .map(|_| nothing())
                    .collect::<Result<_>>()?,
                mounts: Gaps::new()?,
            };
            let (mut round, mut generation) = (0, 0);
            while !shared.stop.load(Ordering::Relaxed) {
                round += 1;
                if round % AGAIN_ONE_IN != 0 {
                    generation += 1;
                }
                if let Err(error) = self.round(round, generation, &shared, &mut tally) {
                    shared.fail(format!("{}, round {round}: {error:#}", self.image.name));
                }
            }
            Ok(tally)
        })
    }

    fn round(&self, round: u64, generation: u64, shared: &Shared, tally: &mut Tally) -> Result<()> {
        let name = &self.image.name;
        // A domain of its own makes an object new; so does another name of the file.
        let (fsid, domain) = if self.in_domain {
            (name.clone(), Some(format!("storm{generation}")))
        } else {
            let fsid = format!("{name}.{generation}");
            let link = self.source.join(&fsid);
            if !link.exists() {
                fs::hard_link(self.source.join(name), &link).context("hard link")?;
            }
            (fsid, None)
        };
        let begun = Instant::now();
        let at = self.image.mount.clone();
        within("mount", self.deadline, {
            let fsid = fsid.clone();
            move || mount_image(&fsid, domain.as_deref(), &at)
        })?;
        tally.mounts.record(begun.elapsed());
        let image = Arc::clone(&self.image);
        within("listing", self.deadline, move || {
            image.contents.check_listing(&image.mount)
        })?;
        self.read(round, shared, tally)?;
        let at = self.image.mount.clone();
        within("unmount", self.deadline, move || {
            Ok(unmount(&at, UnmountFlags::empty())?)
        })?;
        if !self.in_domain && round % AGAIN_ONE_IN != AGAIN_ONE_IN - 1 {
            fs::remove_file(self.source.join(&fsid)).context("hard link")?;
        }
        Ok(())
    }

    /// Reads everything once, or what can be read until the storm ends.
    fn read(&self, round: u64, shared: &Shared, tally: &mut Tally) -> Result<()> {
        let seed = self.seed.wrapping_add(round);
        let pass = Pass::new(std::slice::from_ref(&*self.image), self.readers, seed)?;
        let threads = pass.start(seed);
        while !threads.iter().all(JoinHandle::is_finished) {
            thread::park_timeout(Duration::from_millis(50));
            let stop = shared.stop.load(Ordering::Relaxed);
            pass.stop.store(stop, Ordering::Relaxed);
            if let Some((reader, idle)) = watch::stalled(&pass, self.stall) {
                pass.stop.store(true, Ordering::Relaxed);
                println!("{}\n{}", watch::readers(&pass), watch::kernel_workers());
                bail!("reader {reader} got no byte for {idle} s");
            }
        }
        for (seen, reader) in tally.readers.iter_mut().zip(&pass.readers) {
            seen.gaps.add(&reader.gaps.lock().unwrap())?;
            seen.bytes += reader.bytes.load(Ordering::Relaxed);
        }
        let add = |to: &AtomicU64, n| to.fetch_add(n, Ordering::Relaxed);
        add(&shared.files, pass.files.load(Ordering::Relaxed));
        add(&shared.bytes, pass.bytes.load(Ordering::Relaxed));
        for error in pass.errors.lock().unwrap().drain(..) {
            shared.fail(error);
        }
        if !shared.stop.load(Ordering::Relaxed) {
            add(&shared.rounds, 1);
        }
        Ok(())
    }
}
