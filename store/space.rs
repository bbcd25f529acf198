// SPDX-License-Identifier: GPL-2.0

//! How full a cache's file system is.
//!
//! `statfs` does not count what is being written, so that is counted here and added to it.

use crate::store::limits::Level;
use crate::store::limits::Limits;
use crate::store::limits::Marks;
use crate::vfs::superblock::Space;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

/// What is about to use space.
#[derive(Clone, Copy)]
pub(crate) enum Need {
    /// Nothing: it is only looked at.
    Nothing,
    /// One new file or directory.
    File,
    /// So many bytes of data.
    Bytes(u64),
}

/// The space of one cache.
pub(crate) struct Account {
    marks: Marks,
    /// Bytes of a block of the file system.
    block_size: u64,
    /// Blocks that are being written and that `statfs` does not count yet.
    blocks_writing: AtomicU64,
}

impl Account {
    /// `space` is what the file system has, in blocks that are not 0 bytes long.
    pub(crate) fn new(limits: &Limits, space: Space) -> Self {
        Account {
            marks: limits.marks(space.blocks, space.files),
            block_size: space.block_size,
            blocks_writing: AtomicU64::new(0),
        }
    }

    /// The level at which `need` would leave the file system, which has `space` now.
    pub(crate) fn level(&self, space: Space, need: Need) -> Level {
        let (files, blocks) = match need {
            Need::Nothing => (0, 0),
            Need::File => (1, 0),
            Need::Bytes(bytes) => (0, bytes.div_ceil(self.block_size)),
        };
        let writing = self.blocks_writing.load(Ordering::Relaxed);
        self.marks.level(
            space
                .blocks_available
                .saturating_sub(writing)
                .saturating_sub(blocks),
            space.files_free.saturating_sub(files),
        )
    }

    /// Counts `bytes` as being written until the result is dropped.
    pub(crate) fn begin_write(&self, bytes: u64) -> Writing<'_> {
        let blocks = bytes.div_ceil(self.block_size);
        self.blocks_writing.fetch_add(blocks, Ordering::Relaxed);
        Writing {
            account: self,
            blocks,
        }
    }
}

/// Blocks that are being written.
pub(crate) struct Writing<'a> {
    account: &'a Account,
    blocks: u64,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.account
            .blocks_writing
            .fetch_sub(self.blocks, Ordering::Relaxed);
    }
}
