// SPDX-License-Identifier: MIT OR Apache-2.0

//! Those who read a mounted image, and look whether they get what they should.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::BLOCK_SIZE;
use rustix::fs::fadvise;
use rustix::fs::Advice;

use crate::image::check;
use crate::image::BLOCK;
use crate::times::now;
use crate::times::Times;

/// How much a sequential reader reads at a time, in bytes.
pub(crate) const CHUNK: usize = 128 << 10;

/// The stack of a reader: there may be thousands.
pub(crate) const STACK: usize = 64 << 10;

/// Opens a file that will be read in no order: nothing is read ahead.
///
/// # Errors
///
/// What `open` says.
pub(crate) fn open_random(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    fadvise(&file, 0, None, Advice::Random)?;
    Ok(file)
}

/// Reads one block.
///
/// # Errors
///
/// What `pread` says; the bytes are wrong.
pub(crate) fn read_block(file: &File, block: u64) -> Result<()> {
    let mut bytes = [0; BLOCK_SIZE];
    file.read_exact_at(&mut bytes, block * BLOCK)?;
    check(&bytes, block)
}

/// Reads a file from its beginning to its end; returns how many bytes that were, and how long it
/// took.
///
/// # Errors
///
/// What `read` says; the bytes are wrong.
pub(crate) fn sequential(path: &Path) -> Result<(u64, Duration)> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let size = file.metadata()?.len();
    let mut bytes = vec![0; CHUNK];
    let begun = now();
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).map_or(CHUNK, |rest| rest.min(CHUNK));
        file.read_exact_at(&mut bytes[..len], at)?;
        check(&bytes[..len], at / BLOCK)?;
        at += u64::try_from(len)?;
    }
    Ok((size, now() - begun))
}

/// Reads single blocks, from so many threads that share them; returns how long it took all, and
/// each.
///
/// # Errors
///
/// What `read` says; the bytes are wrong.
pub(crate) fn random(path: &Path, blocks: &[u64], readers: usize) -> Result<(Duration, Times)> {
    let next = AtomicUsize::new(0);
    let start = Barrier::new(readers + 1);
    let read = || {
        let file = open_random(path);
        let mut times = Times::new()?;
        start.wait();
        let file = file?;
        let first = now();
        while let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = now();
            read_block(&file, *block)?;
            times.record(now() - begun);
        }
        Ok::<_, anyhow::Error>((first, now(), times))
    };
    thread::scope(|scope| {
        let builder = || thread::Builder::new().stack_size(STACK);
        let threads: Vec<_> = (0..readers)
            .map(|_| builder().spawn_scoped(scope, read))
            .collect::<Result<_, _>>()?;
        start.wait();
        let mut all = Times::new()?;
        let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
        for thread in threads {
            let ended = thread.join().map_err(|_| anyhow!("a reader panicked"))?;
            let (from, to, times) = ended?;
            (first, last) = (first.min(from), last.max(to));
            all.add(&times)?;
        }
        Ok((last.saturating_sub(first), all))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::stamp;

    #[test]
    fn wrong_bytes_are_found_by_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let mut bytes = vec![0; 70 * BLOCK_SIZE];
        for (number, block) in (0..).zip(bytes.chunks_mut(BLOCK_SIZE)) {
            block[..8].copy_from_slice(&stamp(number));
        }
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(sequential(&path).unwrap().0, 70 * BLOCK);
        let blocks: Vec<u64> = (0..70).collect();
        let (_, times) = random(&path, &blocks, 4).unwrap();
        let counted: u64 = times.distribution().counts.iter().map(|(_, n)| n).sum();
        assert_eq!(counted, 70);

        bytes[69 * BLOCK_SIZE] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(sequential(&path).is_err());
        assert!(random(&path, &blocks, 4).is_err());
        random(&path, &blocks[..69], 4).unwrap();
    }
}
