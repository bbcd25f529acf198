// SPDX-License-Identifier: MIT OR Apache-2.0

//! One pass of culling: the longest unused objects go until there is space enough, or none is left.

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
/// culled, and holds no data. The walk looks at no more than `batch` objects at a time.
///
/// # Errors
///
/// The store cannot be read, or what `kernel` says.
pub(crate) fn run(store: &Store, kernel: &impl Kernel, batch: usize) -> anyhow::Result<Freed> {
    let mut freed = Freed::default();
    freed.add_graves(empty_graveyard(store)?);
    let mut after = None;
    loop {
        let mut oldest = Oldest::new(batch, after.take());
        if !look_around(store, kernel, &mut oldest, &mut freed)? {
            return Ok(freed);
        }
        let candidates = oldest.into_sorted();
        for candidate in &candidates {
            if !kernel.wants_more(&freed)? {
                return Ok(freed);
            }
            cull_object(store, kernel, candidate, &mut freed)?;
        }
        // All of them were tried: on with those that were used later.
        after = candidates.into_iter().next_back();
        if after.is_none() {
            return Ok(freed);
        }
    }
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

fn cull_object(
    store: &Store,
    kernel: &impl Kernel,
    candidate: &Candidate,
    freed: &mut Freed,
) -> anyhow::Result<()> {
    let place = &candidate.place;
    // What has gone meanwhile is no error, nor is what was used meanwhile.
    let Ok(dir) = store.directory_of(place) else {
        return Ok(());
    };
    let Ok(Some(stat)) = store::object(&dir, &place.name) else {
        return Ok(());
    };
    if Used::of(&stat) != candidate.used {
        return Ok(());
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
    Ok(())
}

fn empty_graveyard(store: &Store) -> anyhow::Result<graveyard::Emptied> {
    let graveyard = store.graveyard().context("no directory `graveyard`")?;
    graveyard::empty(graveyard).context("cannot read the graveyard")
}

#[cfg(test)]
mod tests;
