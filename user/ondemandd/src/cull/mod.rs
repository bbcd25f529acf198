// SPDX-License-Identifier: MIT OR Apache-2.0

//! Culling: a thread of the keeper removes what was not used for long when the kernel asks for it.
//!
//! The kernel says so with `EPOLLOUT` on the device, from the time that free space falls below *cull*
//! until it is back at *run*. It decides what is in use; the thread decides what goes first. All that
//! takes long happens here, so that the keeper's own loop sees the end of a worker at once.
//!
//! The commands `inuse` and `cull` mean a name in the caller's working directory. So the thread has
//! one of its own.
//!
//! | module | what it is |
//! |---|---|
//! | [`store`] | the store on disk, read safely |
//! | [`oldest`] | which objects go first |
//! | [`pass`] | one pass over the store |
//! | [`pause`] | when to look again if nothing could go |

pub(crate) mod oldest;
pub(crate) mod pass;
mod pause;
pub(crate) mod store;

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Readiness;
use rustix::fs::StatVfs;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::counters::count;
use crate::counters::Counters;
use crate::graveyard;
use crate::limits::Free;
use crate::limits::Limits;
use pass::Freed;
use pass::Kernel;
use pass::Queue;
use pass::Verdict;
use pause::Pause;
use store::Store;

/// How often to look while culling is wanted and nothing can be done.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks for `EPOLLOUT` alone.
const CULL: Readiness = Readiness {
    message: false,
    cull: true,
    dead: false,
};

/// The thread's state.
struct Culler {
    device: Device,
    store: Store,
    limits: Limits,
    counters: Counters,
    queue: Queue,
    pause: Pause,
    /// The log was told that nothing can be culled.
    told: bool,
}

/// Starts the thread, for a cache that was bound in `dir`. It ends with the process or the cache.
///
/// # Errors
///
/// A descriptor or a thread cannot be had.
pub(crate) fn start(
    device: &Device,
    dir: &Path,
    limits: Limits,
    counters: &Counters,
) -> anyhow::Result<()> {
    let device = device.as_fd().try_clone_to_owned().context("device")?;
    let counters = counters.as_fd().try_clone_to_owned().context("counters")?;
    let culler = Culler {
        device: Device::from_owned_fd(device)?,
        store: Store::open(dir).with_context(|| format!("cannot open {}", dir.display()))?,
        limits,
        counters: Counters::from_owned_fd(counters)?,
        queue: Queue::new(pass::BATCH),
        pause: Pause::default(),
        told: false,
    };
    let run = || match culler.run() {
        Ok(()) => debug!("the cache is dead: no more culling"),
        Err(error) => error!(
            error = format!("{error:#}"),
            "no more culling: the cache may become full"
        ),
    };
    thread::Builder::new()
        .name("ondemandd-cull".into())
        .spawn(run)
        .context("cannot start the thread that culls")?;
    Ok(())
}

impl Culler {
    /// Returns when the cache is dead.
    fn run(mut self) -> anyhow::Result<()> {
        own_working_directory().context("no working directory of its own")?;
        self.empty_graveyard();
        loop {
            // While culling is wanted this returns at once.
            let ready = self.device.wait(CULL, Some(Duration::ZERO))?;
            if ready.dead {
                return Ok(());
            }
            if !ready.cull {
                self.pause.end();
                self.told = false;
                self.device.wait(CULL, None)?;
                continue;
            }
            if !self.is_low()? {
                // The C module looks at the space only when something is written.
                self.pause.end();
                self.told = false;
                thread::sleep(LOOK_EVERY);
                continue;
            }
            // An object whose image was unmounted may be idle now.
            let closes = self.counters.snapshot().closes;
            if !self.pause.is_over(closes, Instant::now()) {
                thread::sleep(LOOK_EVERY);
            } else if let Err(error) = self.pass() {
                error!(
                    error = format!("{error:#}"),
                    "culling failed; it is tried again"
                );
                self.pause.begin(Instant::now());
            }
        }
    }

    /// Deletes what an earlier keeper left.
    fn empty_graveyard(&self) {
        let emptied = self.store.graveyard().and_then(graveyard::empty);
        match emptied {
            Ok(emptied) if emptied.files > 0 => {
                let (graves, bytes) = (emptied.graves, emptied.bytes);
                info!(graves, bytes, "graveyard emptied");
            }
            _ => {}
        }
        if let Some(error) = emptied.map_or_else(Some, |emptied| emptied.failed) {
            warn!(%error, "something in `graveyard` cannot be deleted; do it by hand");
        }
    }

    fn pass(&mut self) -> anyhow::Result<()> {
        let asker = Asker {
            device: &self.device,
            store: &self.store,
            limits: &self.limits,
            before: Free::of(&self.store.space().context("statfs")?),
        };
        let started = Instant::now();
        let freed = pass::run(&self.store, &asker, &mut self.queue)?;
        // The working directory would hold a directory that may have to go.
        rustix::process::chdir("/").context("chdir")?;
        let Freed {
            objects,
            volumes,
            bytes,
            failed,
            ..
        } = freed;
        count(&self.counters.culled_objects, objects);
        count(&self.counters.culled_bytes, bytes);
        let took = started.elapsed();
        if freed.is_something() {
            info!(objects, volumes, bytes, ?took, "culled");
            self.pause.end();
        } else {
            debug!(?took, "nothing to cull");
        }
        if failed > 0 && !self.told {
            warn!(
                failed,
                "the kernel could not cull something; its log says why"
            );
        }
        // What was freed may take a moment to count; what was not needs another look later.
        if is_wanted(&self.device)? && self.is_low()? {
            self.pause.begin(Instant::now());
            if !freed.is_something() && !self.told {
                self.told = true;
                warn!(
                    "the cache is too full, and nothing in it can be culled: unmount images, \
                     make room on its file system, or lower the limits (--brun and others); \
                     what is cached stays readable, but below the stop marks nothing is added"
                );
            }
        }
        Ok(())
    }

    /// Whether the space is below the *run* marks.
    fn is_low(&self) -> anyhow::Result<bool> {
        let stat = self.store.space().context("statfs")?;
        Ok(!self.limits.are_met(&stat, Free::of(&stat)))
    }
}

/// The kernel during a pass.
struct Asker<'a> {
    device: &'a Device,
    store: &'a Store,
    limits: &'a Limits,
    /// What was free before the pass.
    before: Free,
}

impl Kernel for Asker<'_> {
    /// The kernel has the say; but the C module looks at the space only when something is written,
    /// and some file systems free it only after a while. So what was freed is added up here, too.
    fn wants_more(&self, freed: &Freed) -> anyhow::Result<bool> {
        if !is_wanted(self.device)? {
            return Ok(false);
        }
        let stat = self.store.space().context("statfs")?;
        let free = estimate(&stat, self.before, freed);
        Ok(!self.limits.are_met(&stat, free))
    }

    fn cull(&self, dir: BorrowedFd<'_>, name: &OsStr) -> anyhow::Result<Verdict> {
        remove(self.device, dir, name)
    }
}

/// Has the kernel remove `name` in `dir`, unless it is in use. The calling thread has a working directory of its own,
/// which is `dir` then.
pub(crate) fn remove(
    device: &Device,
    dir: BorrowedFd<'_>,
    name: &OsStr,
) -> anyhow::Result<Verdict> {
    rustix::process::fchdir(dir).context("fchdir")?;
    let in_use = Command::InUse(name.to_owned());
    let cull = Command::Cull(name.to_owned());
    let result = device.send(&in_use);
    verdict(result.and_then(|()| device.send(&cull)))
}

fn is_wanted(device: &Device) -> anyhow::Result<bool> {
    Ok(device.wait(CULL, Some(Duration::ZERO))?.cull)
}

/// What is free, or will be when the file system has done its work.
fn estimate(stat: &StatVfs, before: Free, freed: &Freed) -> Free {
    let blocks = freed.bytes / stat.f_frsize.max(1);
    let now = Free::of(stat);
    Free {
        blocks: before.blocks.saturating_add(blocks).max(now.blocks),
        files: before.files.saturating_add(freed.files).max(now.files),
    }
}

/// # Errors
///
/// One that the next object would have, too.
fn verdict(result: cachefiles_proto::Result<()>) -> anyhow::Result<Verdict> {
    let Err(error) = result else {
        return Ok(Verdict::Culled);
    };
    match error.errno() {
        Some(Errno::BUSY) => Ok(Verdict::InUse),
        Some(Errno::NOENT | Errno::STALE) => Ok(Verdict::Gone),
        Some(Errno::OPNOTSUPP) => Err(error).context("this kernel module cannot cull"),
        errno => {
            debug!(%error, "not culled");
            Ok(Verdict::Failed(errno))
        }
    }
}

/// Gives the calling thread a working directory of its own.
pub(crate) fn own_working_directory() -> Result<(), Errno> {
    // SAFETY: Descriptors stay shared: only the working directory, the root and the umask are
    // unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    rustix::process::chdir("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno) -> cachefiles_proto::Result<()> {
        Err(cachefiles_proto::Error::Command {
            command: "cull D".into(),
            errno,
        })
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        assert_eq!(verdict(Ok(())).unwrap(), Verdict::Culled);
        assert_eq!(verdict(refused(Errno::BUSY)).unwrap(), Verdict::InUse);
        assert_eq!(verdict(refused(Errno::STALE)).unwrap(), Verdict::Gone);
        assert_eq!(verdict(refused(Errno::NOENT)).unwrap(), Verdict::Gone);
        assert_eq!(
            verdict(refused(Errno::PERM)).unwrap(),
            Verdict::Failed(Some(Errno::PERM))
        );
        assert!(verdict(refused(Errno::OPNOTSUPP)).is_err());
    }

    #[test]
    fn space_that_comes_late_is_counted_once() {
        let mut stat = rustix::fs::statvfs("/").unwrap();
        (stat.f_frsize, stat.f_bavail, stat.f_ffree) = (4096, 110, 7);
        let before = Free {
            blocks: 100,
            files: 5,
        };
        let freed = Freed {
            bytes: 20 * 4096,
            files: 1,
            ..Freed::default()
        };
        let expected = Free {
            blocks: 120,
            files: 7,
        };
        assert_eq!(estimate(&stat, before, &freed), expected);
    }

    #[test]
    fn the_working_directory_is_the_threads_own() {
        let here = std::env::current_dir().unwrap();
        thread::spawn(|| {
            own_working_directory().unwrap();
            assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
        })
        .join()
        .unwrap();
        assert_eq!(std::env::current_dir().unwrap(), here);
    }
}
