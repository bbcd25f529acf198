// SPDX-License-Identifier: MIT OR Apache-2.0

//! Many images of one domain, of each of which many blocks are read at a time, by a thread each.

use std::fs;
use std::fs::File;
use std::thread;
use std::thread::Scope;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::anyhow;
use anyhow::ensure;
use anyhow::Result;

use crate::image::MEDIUM;
use crate::mounts::Mounted;
use crate::readers::open_random;
use crate::readers::read_block;
use crate::readers::STACK;
use crate::times::now;
use crate::work::Work;

/// What the kernel calls a reader's thread.
const READER: &str = "reader";

/// The images, mounted, and the file of each, open.
pub(super) struct Domain {
    mounts: Vec<Mounted>,
    files: Vec<File>,
    /// Blocks of each that were read already.
    used: u64,
}

/// READs that were begun; each thread ends with the time at which it got its bytes.
pub(super) struct Readers<'scope> {
    threads: Vec<ScopedJoinHandle<'scope, Result<Duration>>>,
}

impl Domain {
    /// Mounts them; somebody serves them meanwhile.
    ///
    /// # Errors
    ///
    /// A mount or an open fails.
    pub(super) fn mount(work: &Work) -> Result<Self> {
        let mounts = (0..work.size(100, 25))
            .map(|number| Mounted::over_fscache(&work.dir, &MEDIUM.fsid_of_many(number)))
            .collect::<Result<Vec<_>>>()?;
        let files = mounts
            .iter()
            .map(|mount| {
                let file = open_random(&mount.path())?;
                // What EROFS reads to find the file's blocks is there from now on.
                read_block(&file, 0)?;
                Ok(file)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Domain {
            mounts,
            files,
            used: 1,
        })
    }

    /// How many objects there are.
    pub(super) fn objects(&self) -> usize {
        self.files.len()
    }

    /// How many blocks of each object so many READs are for, rounded up.
    fn blocks_of_each(&self, reads: usize) -> Result<u64> {
        Ok(u64::try_from(reads.div_ceil(self.objects()))?)
    }

    /// Begins so many READs, none of which is for a block that was read before.
    ///
    /// # Errors
    ///
    /// A thread cannot be started, or there are not so many blocks.
    pub(super) fn read<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        reads: usize,
    ) -> Result<Readers<'scope>> {
        let each = self.blocks_of_each(reads)?;
        ensure!(
            self.used + each <= MEDIUM.blocks,
            "only {} blocks an image",
            MEDIUM.blocks
        );
        let blocks = self.used..self.used + each;
        let threads = blocks
            .flat_map(|block| self.files.iter().map(move |file| (block, file)))
            .take(reads)
            .map(|(block, file)| {
                let read = move || {
                    read_block(file, block)?;
                    Ok(now())
                };
                thread::Builder::new()
                    .name(READER.to_owned())
                    .stack_size(STACK)
                    .spawn_scoped(scope, read)
            })
            .collect::<Result<_, _>>()?;
        Ok(Readers { threads })
    }

    /// Takes note that so many READs were begun.
    ///
    /// # Errors
    ///
    /// That is no number of blocks.
    pub(super) fn count(&mut self, reads: usize) -> Result<()> {
        self.used += self.blocks_of_each(reads)?;
        Ok(())
    }

    /// Unmounts all.
    ///
    /// # Errors
    ///
    /// An unmount fails.
    pub(super) fn unmount(self) -> Result<()> {
        drop(self.files);
        self.mounts.into_iter().try_for_each(Mounted::unmount)
    }
}

impl Readers<'_> {
    /// Waits until all of them wait in the kernel.
    ///
    /// # Errors
    ///
    /// One has ended; `/proc` cannot be read.
    pub(super) fn wait_until_blocked(&self) -> Result<()> {
        loop {
            ensure!(
                !self.threads.iter().any(ScopedJoinHandle::is_finished),
                "a reader has ended before its READ was answered"
            );
            if blocked_readers()? == self.threads.len() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for all; returns when the last one got its bytes.
    ///
    /// # Errors
    ///
    /// A read fails.
    pub(super) fn last(self) -> Result<Duration> {
        let mut last = Duration::ZERO;
        for thread in self.threads {
            let at = thread.join().map_err(|_| anyhow!("a reader panicked"))??;
            last = last.max(at);
        }
        Ok(last)
    }

    /// Waits for all, whatever comes of them.
    pub(super) fn end(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// How many readers of this process sleep.
fn blocked_readers() -> Result<usize> {
    let mut blocked = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        blocked += usize::from(sleeps(&stat));
    }
    Ok(blocked)
}

fn sleeps(stat: &str) -> bool {
    let state = stat.split_once(&format!("({READER}) "));
    state.is_some_and(|(_, rest)| rest.starts_with(['D', 'S']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readers_that_sleep_are_counted() {
        assert!(sleeps("12 (reader) D 1 12 12 0"));
        assert!(sleeps("12 (reader) S 1 12 12 0"));
        assert!(!sleeps("12 (reader) R 1 12 12 0"));
        assert!(!sleeps("12 (ondemand-bench) D 1 12 12 0"));
        assert!(!sleeps(""));
    }
}
