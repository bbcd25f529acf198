// SPDX-License-Identifier: GPL-2.0

//! Fills of a file of the store: from before the write until what it has stored is marked as present.
//!
//! A fill that has not written all leaves extents, and perhaps a part of a page, which would be data to
//! whoever looks at the file next: they are taken from it again. That must not hit what another fill writes
//! to the same pages. So fills are listed, and who takes pages back is alone there.
//!
//! What was filled through memory ([`Way::Cached`]) is noted until it is known to be on the disk
//! ([`Contents::settle`]). The file system's word is not enough for that: of a write that fails at once, ext4
//! marks the extent as written all the same (`ext4_put_io_end` in 6.12), and its old contents are data from then on.
//!
//! Locking: the list is not locked while a file is written.

use crate::kcompat::fs::File;
use crate::store::contents::Contents;
use crate::store::pages::pages;
use crate::store::pages::PAGE;
use crate::vfs::page_cache;
use crate::vfs::store_file;
use crate::vfs::store_io::Way;
use core::ops::Range;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// A fill that is under way, or whose pages are only in memory.
struct Fill {
    pages: Range<u64>,
    /// It takes pages back; no fill of a part of them begins.
    alone: bool,
}

/// The fills of one file, by their numbers.
#[derive(Default)]
pub(super) struct Fills {
    last: u64,
    under_way: RBTree<u64, Fill>,
    /// They have ended, and nobody has seen yet that what they have stored has come to the disk.
    in_memory: RBTree<u64, Fill>,
}

impl Contents {
    /// Begins to fill a range of bytes. Waits for a fill of a part of it that failed.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn begin_fill(&self, bytes: Range<u64>) -> Result<Filling<'_>> {
        let pages = pages(&bytes);
        self.reserve(pages.clone())?;
        let mut fills = self.fills.lock();
        while fills.of(&pages).any(|(_, other)| other.alone) {
            self.fill_ended.wait(&mut fills);
        }
        let number = fills.last + 1;
        let fill = Fill {
            pages,
            alone: false,
        };
        fills
            .under_way
            .try_create_and_insert(number, fill, GFP_KERNEL)?;
        fills.last = number;
        Ok(Filling {
            contents: self,
            number,
            bytes,
            in_memory: None,
        })
    }

    /// Waits until what was filled through memory is on the disk, and gives the memory back. If anything of it is lost,
    /// all of it is absent from now on, and taken from the file: nobody knows which part was lost.
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOSPC` and what else the file system says if data was lost.
    pub(crate) fn settle(&self, file: &File) -> Result {
        let taken = core::mem::take(&mut self.fills.lock().in_memory);
        let written = page_cache::write_back(file);
        if written.is_err() {
            self.take_back(file, taken);
        }
        written.and(page_cache::give_back(file))
    }

    /// The same, if anything was filled through memory since.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn settle_rest(&self, file: &File) -> Result {
        let nothing = self.fills.lock().in_memory.keys().next().is_none();
        if nothing {
            return Ok(());
        }
        self.settle(file)
    }

    /// Makes the pages of fills that have ended absent, and takes them from the file.
    fn take_back(&self, file: &File, mut taken: RBTree<u64, Fill>) {
        loop {
            let first = taken.iter().next();
            let first = first.map(|(number, fill)| (*number, fill.pages.clone()));
            let Some((number, pages)) = first else {
                return;
            };
            // It is under way again, and needs no memory for that.
            if let Some(node) = taken.remove_node(&number) {
                let other = self.fills.lock().under_way.insert(node);
                drop(other);
            }
            let filling = Filling {
                contents: self,
                number,
                bytes: 0..0,
                in_memory: None,
            };
            filling.alone(pages.clone());
            self.forget(pages.clone());
            if !self.release_absent(file, pages) {
                self.spoiled.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether the file has what may look like data to whoever looks at it next, and is none.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Relaxed)
    }
}

impl Fills {
    /// The fills of parts of `pages`.
    fn of<'a>(&'a self, pages: &'a Range<u64>) -> impl Iterator<Item = (u64, &'a Fill)> {
        self.under_way
            .iter()
            .filter(|(_, fill)| fill.pages.start < pages.end && pages.start < fill.pages.end)
            .map(|(number, fill)| (*number, fill))
    }
}

/// A fill that is under way, until this is dropped.
pub(crate) struct Filling<'a> {
    contents: &'a Contents,
    number: u64,
    bytes: Range<u64>,
    /// What it has stored, and what has to come to the disk yet.
    in_memory: Option<Range<u64>>,
}

impl Filling<'_> {
    /// Notes what was written to `file` in this way, from the start of the range on, and tells how much of that
    /// counts: whole pages, and what ends where the object does, at `size` if that is known. The rest of
    /// the range is a hole again, unless it was stored before.
    ///
    /// # Errors
    ///
    /// That of `written`. `EFBIG` if not even one page was written since the task may not write a longer file,
    /// `EIO` if that has another cause.
    pub(crate) fn end(
        mut self,
        file: &File,
        way: Way,
        written: Result<usize>,
        size: Option<u64>,
    ) -> Result<usize> {
        let Range { start, end } = self.bytes.clone();
        let stopped = start + written.as_ref().map_or(0, |written| *written as u64);
        let counts = if size == Some(stopped) {
            stopped
        } else {
            (stopped - stopped % PAGE).max(start)
        };
        let stored = pages(&(start..counts));
        let all = pages(&(start..end));
        self.contents.mark(stored.clone());
        if way == Way::Cached && !stored.is_empty() {
            self.in_memory = Some(stored.clone());
        }
        if counts < end {
            self.alone(stored.end..all.end);
            self.contents.release_absent(file, stored.end..all.end);
        }
        if written? > 0 && counts == start {
            let limited = stopped >= store_file::size_limit();
            return Err(if limited { EFBIG } else { EIO });
        }
        usize::try_from(counts - start).map_err(|_| EFBIG)
    }

    /// Narrows the fill to these pages, and waits until nobody else fills any of them; from now on nobody
    /// begins to. Of two that wait for one another the one that began first is the first.
    fn alone(&self, pages: Range<u64>) {
        let mut fills = self.contents.fills.lock();
        if let Some(fill) = fills.under_way.get_mut(&self.number) {
            fill.pages = pages.clone();
            fill.alone = true;
        }
        // Who waits for this one may be the first now.
        self.contents.fill_ended.notify_all();
        let before = |(number, other): (u64, &Fill)| {
            number != self.number && (!other.alone || number < self.number)
        };
        while fills.of(&pages).any(before) {
            self.contents.fill_ended.wait(&mut fills);
        }
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        let mut fills = self.contents.fills.lock();
        let mut ended = fills.under_way.remove_node(&self.number);
        if let Some(pages) = self.in_memory.take() {
            let stored = Fill {
                pages,
                alone: false,
            };
            ended = ended.and_then(|node| {
                let node = node.into_reservation().into_node(self.number, stored);
                fills.in_memory.insert(node)
            });
        }
        drop(fills);
        self.contents.fill_ended.notify_all();
        drop(ended);
    }
}
