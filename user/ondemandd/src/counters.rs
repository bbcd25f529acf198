// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers that outlive the worker: a memfd that keeper and workers map.
//!
//! The keeper makes it, every worker gets it with the device and counts in it with atomic
//! operations; nobody has to be alive for the numbers to be there.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context;
use memmap2::MmapRaw;
use rustix::fs::MemfdFlags;
use rustix::fs::SealFlags;
use serde::Deserialize;
use serde::Serialize;

use crate::latency::Histogram;

/// Declares the numbers once, for the shared memory and for [`Snapshot`].
macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The shared numbers; all count from the keeper's start.
        #[derive(Debug)]
        #[repr(C)]
        pub struct Numbers {
            $($(#[doc = $doc])+ pub $name: AtomicU64,)+
        }

        /// What the numbers were at one moment. Those that a keeper of an earlier version does not count are 0.
        #[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
        #[serde(default)]
        pub struct Snapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Numbers {
            /// Reads every number once; they are not read at the same instant.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(Relaxed),)+ }
            }
        }

        impl Snapshot {
            /// Names, what they mean in one line, and values, in order.
            #[must_use]
            pub fn rows(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name),)+]
            }
        }
    };
}

numbers! {
    /// OPENs answered with a size.
    opens,
    /// Those among `opens` whose volume and cookie key had been opened before, as far as the record of
    /// versions goes back: after a takeover, after its descriptor was closed, or with a new mount.
    reopens,
    /// OPENs answered with an error: unknown blobs, for the most part.
    refused,
    /// READs completed, with or without data.
    reads,
    /// Bytes written into the cache, in whole blocks.
    bytes,
    /// READs whose data could not be read from the source: their readers got an error.
    source_errors,
    /// OPENs that were refused since the blob is another one than what is in use, as far as the kernel does
    /// not see to it itself.
    changed_blobs,
    /// Chunks that did not fit the manifest, and were fetched again.
    bad_chunks,
    /// READs whose data did not fit the manifest the second time either: their readers got an error.
    verify_errors,
    /// READs, OPENs and commands that the kernel did not accept: mostly because their reader had
    /// been killed.
    kernel_errors,
    /// READs and CLOSEs of objects that this worker does not know.
    strays,
    /// CLOSEs.
    closes,
    /// Takeovers, each with one `restore`.
    restores,
    /// Workers started.
    worker_starts,
    /// READs that found the cache full, waited for space, and got it.
    fills_that_waited,
    /// READs that ended without their data since the cache was full: their readers got an error.
    fills_without_space,
    /// Objects that were culled.
    culled_objects,
    /// The space that these took on disk, in bytes.
    culled_bytes,
    /// Requests to remote sources that had failed and were sent once more.
    retries,
    /// Bytes among `bytes` that were read ahead: nobody had asked for them yet.
    ahead_bytes,
    /// Requests to remote sources that were sent for these.
    ahead_requests,
    /// Those among them whose data did not come, or did not fit the manifest twice; and what came and could not
    /// be written. Nobody got an error.
    ahead_errors,
    /// OPENs and READs that were read from the device.
    requests_begun,
    /// Those among them that nobody works on any more: they were answered, or their worker died.
    requests_ended,
    /// The time that requests took from their delivery to their answer, of all together, in microseconds.
    request_micros,
}

impl Snapshot {
    /// Messages that were answered: more of them mean that a worker was of use.
    #[must_use]
    pub fn served(&self) -> u64 {
        let answers = [self.opens, self.refused, self.reads, self.closes];
        answers.into_iter().fold(0, u64::wrapping_add)
    }
}

/// What lies in the memfd. All zero is a good start.
#[repr(C)]
struct Shared {
    numbers: Numbers,
    latency: Histogram,
}

/// The shared memory, mapped. It reads as [`Numbers`].
pub struct Counters {
    memfd: File,
    map: MmapRaw,
}

impl Counters {
    /// New numbers, all 0.
    ///
    /// # Errors
    ///
    /// No memory or no descriptor left.
    pub fn create() -> anyhow::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd =
            rustix::fs::memfd_create("ondemandd counters", flags).context("memfd_create")?;
        let memfd = File::from(memfd);
        memfd
            .set_len(u64::try_from(size_of::<Shared>())?)
            .context("cannot size the counters")?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memfd, seals).context("cannot seal the counters")?;
        Self::from_owned_fd(memfd.into())
    }

    /// Maps numbers that another process made.
    ///
    /// # Errors
    ///
    /// `fd` is no memfd of the right size that is sealed against changes of it; no memory left.
    pub fn from_owned_fd(fd: OwnedFd) -> anyhow::Result<Self> {
        let memfd = File::from(fd);
        let seals = rustix::fs::fcntl_get_seals(&memfd).context("the counters are no memfd")?;
        let size = memfd.metadata().context("fstat of the counters")?.len();
        ensure!(
            seals.contains(SealFlags::SHRINK) && size == u64::try_from(size_of::<Shared>())?,
            "the counters are those of another version"
        );
        let map = MmapRaw::map_raw(&memfd).context("cannot map the counters")?;
        ensure!(
            map.len() == size_of::<Shared>(),
            "the counters are mapped in part"
        );
        Ok(Counters { memfd, map })
    }

    fn shared(&self) -> &Shared {
        let start = self.map.as_ptr().cast::<Shared>();
        // SAFETY:
        // - The mapping starts at a page, is as long as `Shared` and lives as long as `self`; the
        //   seals of the memfd guarantee that its memory does not go away below.
        // - `Shared` holds atomics only: every content is valid, and other processes may change it.
        unsafe { &*start }
    }

    /// How long requests took.
    #[must_use]
    pub fn latency(&self) -> &Histogram {
        &self.shared().latency
    }

    /// Notes that a request was answered.
    pub fn note_end(&self, took: Duration) {
        count(&self.requests_ended, 1);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        count(&self.request_micros, micros);
        self.latency().note(took);
    }

    /// Notes that the worker has died, and with it all that it was working on.
    pub fn note_death(&self) {
        let begun = self.requests_begun.load(Relaxed);
        self.requests_ended.store(begun, Relaxed);
    }
}

impl Deref for Counters {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        &self.shared().numbers
    }
}

impl AsFd for Counters {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

/// Adds to a number.
pub fn count(number: &AtomicU64, by: u64) {
    number.fetch_add(by, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_numbers() {
        let keeper = Counters::create().unwrap();
        let fd = keeper.as_fd().try_clone_to_owned().unwrap();
        let worker = Counters::from_owned_fd(fd).unwrap();
        count(&worker.reads, 2);
        count(&keeper.reads, 1);
        assert_eq!(keeper.snapshot().reads, 3);
        drop(worker);
        assert_eq!(keeper.snapshot().served(), 3);
    }

    #[test]
    fn other_files_are_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(Counters::from_owned_fd(file.into()).is_err());
        // The right size without the seal: its owner could take the memory away.
        let open = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        let open = File::from(open);
        open.set_len(u64::try_from(size_of::<Shared>()).unwrap())
            .unwrap();
        assert!(Counters::from_owned_fd(open.into()).is_err());
    }

    #[test]
    fn a_snapshot_survives_json() {
        let counters = Counters::create().unwrap();
        count(&counters.bytes, u64::MAX);
        let snapshot = counters.snapshot();
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
        assert!(snapshot
            .rows()
            .iter()
            .any(|(name, _, value)| (*name, *value) == ("bytes", u64::MAX)));
    }
}
