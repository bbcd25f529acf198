// SPDX-License-Identifier: MIT OR Apache-2.0

//! One pass of culling: the longest unused objects go until there is space enough, or none is left.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use anyhow::Context;
use rustix::io::Errno;
use tracing::debug;

use crate::cull::oldest::Candidate;
use crate::cull::oldest::Oldest;
use crate::cull::oldest::Used;
use crate::cull::store;
use crate::cull::store::Found;
use crate::cull::store::Store;
use crate::graveyard;

/// So many candidates are kept of one walk: at most 2 MiB, at 255 bytes a name.
pub(crate) const BATCH: usize = 4096;

/// After so many objects their volumes are looked at. Whether one is empty takes 256 directories to
/// read, and a reader may wait for the space of the objects; but if files are short, it is the
/// volumes that help.
const OBJECTS_BEFORE_VOLUMES: usize = 32;

/// Who is next. It is kept between passes: a walk of a large store takes long, and a reader may wait
/// for space. What came into use or to life since the walk was used later than all that is left.
#[derive(Debug)]
pub(crate) struct Queue {
    batch: usize,
    /// The last is the next.
    left: Vec<Candidate>,
}

/// What a pass needs of the kernel.
pub(crate) trait Kernel {
    /// Whether more is to be culled, after so much was freed.
    fn wants_more(&self, freed: &Freed) -> anyhow::Result<bool>;

    /// Has `name` in `dir` removed, unless it is in use.
    fn cull(&self, dir: BorrowedFd<'_>, name: &OsStr) -> anyhow::Result<Verdict>;
}

/// What became of something that was to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It is gone.
    Culled,
    /// It is in use, and stays.
    InUse,
    /// Somebody else has removed it.
    Gone,
    /// The kernel could not remove it.
    Failed(Option<Errno>),
}

/// What was freed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Freed {
    /// Files of objects.
    pub(crate) objects: u64,
    /// Directories of volumes that were empty.
    pub(crate) volumes: u64,
    /// Inodes, of objects, volumes and graves.
    pub(crate) files: u64,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// What the kernel could not remove.
    pub(crate) failed: u64,
}

impl Queue {
    /// Looks at no more than `batch` objects at a time.
    pub(crate) fn new(batch: usize) -> Self {
        Queue {
            batch,
            left: Vec::new(),
        }
    }
}

impl Freed {
    /// Whether a pass was of use.
    pub(crate) fn is_something(&self) -> bool {
        self.files > 0
    }

    fn add_graves(&mut self, emptied: graveyard::Emptied) {
        self.files += emptied.files;
        self.bytes += emptied.bytes;
    }
}

/// Culls until the kernel wants no more or nothing is left that could go.
///
/// An empty volume goes at once: it is 257 directories, most of the inodes of an image that was
/// culled, and holds no data.
///
/// # Errors
///
/// The store cannot be read, or what `kernel` says.
pub(crate) fn run(store: &Store, kernel: &impl Kernel, queue: &mut Queue) -> anyhow::Result<Freed> {
    let mut freed = Freed::default();
    freed.add_graves(empty_graveyard(store)?);
    // What is left of an earlier walk says nothing about what came after it.
    let mut after = None;
    let mut has_seen_all = false;
    loop {
        cull_objects(store, kernel, queue, &mut freed)?;
        if has_seen_all || !kernel.wants_more(&freed)? {
            return Ok(freed);
        }
        let mut oldest = Oldest::new(queue.batch, after.take());
        if !look_around(store, kernel, &mut oldest, &mut freed)? {
            return Ok(freed);
        }
        queue.left = oldest.into_sorted();
        // All of them will be tried: then on with those that were used later.
        has_seen_all = queue.left.len() < queue.batch;
        after = queue.left.last().cloned();
        queue.left.reverse();
    }
}

/// Culls those in the queue, until there is space enough, and the volumes that become empty.
fn cull_objects(
    store: &Store,
    kernel: &impl Kernel,
    queue: &mut Queue,
    freed: &mut Freed,
) -> anyhow::Result<()> {
    while !queue.left.is_empty() && kernel.wants_more(freed)? {
        let mut volumes = BTreeSet::new();
        for _ in 0..OBJECTS_BEFORE_VOLUMES {
            if !kernel.wants_more(freed)? {
                break;
            }
            let Some(candidate) = queue.left.pop() else {
                break;
            };
            if cull_object(store, kernel, &candidate, freed)? {
                volumes.insert(candidate.place.volume);
            }
        }
        // An image that is not in a domain is all of its volume.
        for volume in volumes {
            if store.is_empty(&volume).unwrap_or(false) {
                cull_volume(store, kernel, &volume, freed)?;
            }
        }
    }
    Ok(())
}

/// Walks the store. False if there is space enough before any object has gone.
fn look_around(
    store: &Store,
    kernel: &impl Kernel,
    oldest: &mut Oldest,
    freed: &mut Freed,
) -> anyhow::Result<bool> {
    let mut result = Ok(true);
    let walked = store.walk(|found| match found {
        Found::Object(candidate) => {
            oldest.offer(candidate);
            ControlFlow::Continue(())
        }
        Found::EmptyVolume(volume) => {
            result =
                cull_volume(store, kernel, &volume, freed).and_then(|()| kernel.wants_more(freed));
            match result {
                Ok(true) => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        }
    });
    walked.context("cannot read the cache's directory")?;
    result
}

fn cull_volume(
    store: &Store,
    kernel: &impl Kernel,
    volume: &OsStr,
    freed: &mut Freed,
) -> anyhow::Result<()> {
    let cache = store.cache().context("no directory `cache`")?;
    let verdict = kernel.cull(cache.as_fd(), volume)?;
    debug!(?volume, ?verdict, "empty volume");
    match verdict {
        Verdict::Culled => {
            freed.volumes += 1;
            freed.add_graves(empty_graveyard(store)?);
        }
        Verdict::Failed(_) => freed.failed += 1,
        Verdict::InUse | Verdict::Gone => {}
    }
    Ok(())
}

/// Whether the object has gone.
fn cull_object(
    store: &Store,
    kernel: &impl Kernel,
    candidate: &Candidate,
    freed: &mut Freed,
) -> anyhow::Result<bool> {
    let place = &candidate.place;
    // What has gone meanwhile is no error, nor is what was used meanwhile.
    let Ok(dir) = store.directory_of(place) else {
        return Ok(false);
    };
    let Ok(Some(stat)) = store::object(&dir, &place.name) else {
        return Ok(false);
    };
    if Used::of(&stat) != candidate.used {
        return Ok(false);
    }
    let verdict = kernel.cull(dir.as_fd(), &place.name)?;
    let bytes = store::bytes_of(&stat);
    debug!(?place, bytes, ?verdict, "object");
    match verdict {
        Verdict::Culled => {
            freed.objects += 1;
            freed.files += 1;
            freed.bytes += bytes;
        }
        Verdict::Failed(_) => freed.failed += 1,
        Verdict::InUse | Verdict::Gone => {}
    }
    Ok(verdict == Verdict::Culled)
}

fn empty_graveyard(store: &Store) -> anyhow::Result<graveyard::Emptied> {
    let graveyard = store.graveyard().context("no directory `graveyard`")?;
    graveyard::empty(graveyard).context("cannot read the graveyard")
}

#[cfg(test)]
mod tests;
