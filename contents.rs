// SPDX-License-Identifier: GPL-2.0

//! What a file of the store holds.
//!
//! The file system is asked once, when a file that exists is looked up ([`Contents::learn`]). From then on
//! a map of the writes that were completed decides: what the file system calls data depends on who else
//! reads the file (`vfs/allocation.rs`), and an extent that a failed write has left is none.
//!
//! A fill that has not written all leaves extents, and perhaps a part of a page, which would be data to
//! whoever looks at the file next: they are taken from it again. That must not hit what another fill writes
//! to the same pages. So fills are listed, and who takes pages back is alone there.
//!
//! Locking: `fills` is not held while a file is written. `map` is a leaf, held for one chunk.

use crate::cache::PAGE;
use crate::holes;
use crate::kcompat::fs::File;
use crate::kcompat::print::Once;
use crate::present;
use crate::present::Chunk;
use crate::present::Chunks;
use crate::present::Map;
use crate::present::Part;
use crate::present::Step;
use crate::present::CHUNK;
use crate::present::WORDS;
use crate::vfs::allocation;
use crate::vfs::store_file;
use crate::vfs::superblock::FsKind;
use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;
use kernel::init;
use kernel::new_condvar;
use kernel::new_mutex;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::rbtree::RBTreeNode;
use kernel::sync::Arc;
use kernel::sync::CondVar;
use kernel::sync::Mutex;
use kernel::sync::SpinLock;

type Bits = KBox<[u64; WORDS]>;

struct Tree(RBTree<u64, Chunk<Bits>>);

impl Chunks for Tree {
    type Bits = Bits;

    fn get(&mut self, number: u64) -> Option<&mut Chunk<Bits>> {
        self.0.get_mut(&number)
    }

    fn next(&mut self, from: u64) -> Option<u64> {
        let cursor = self.0.cursor_lower_bound(&from)?;
        Some(*cursor.current().0)
    }
}

/// A fill that is under way.
struct Fill {
    pages: Range<u64>,
    /// It takes pages back; no fill of a part of them begins.
    alone: bool,
}

#[derive(Default)]
struct Fills {
    last: u64,
    under_way: RBTree<u64, Fill>,
}

/// Which pages of one file are present.
#[pin_data]
pub(crate) struct Contents {
    #[pin]
    map: SpinLock<Map<Tree>>,
    /// In the file's last page there is data up to (not including) this byte, and no further; 0: there is
    /// no such part of a page.
    tail: AtomicU64,
    #[pin]
    fills: Mutex<Fills>,
    #[pin]
    fill_ended: CondVar,
}

impl Contents {
    /// Of a new file: nothing.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn nothing() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                map <- new_spinlock!(Map::new(Tree(RBTree::new())), "cachefiles_present"),
                tail: AtomicU64::new(0),
                fills <- new_mutex!(Fills::default(), "cachefiles_fills"),
                fill_ended <- new_condvar!("cachefiles_fill_ended"),
            }),
            GFP_KERNEL,
        )
    }

    /// Of a file that exists: what was written. What is only allocated is taken from the file, so that
    /// nobody who reads the store later takes it for data; if that fails it stays there and is absent all
    /// the same. The caller has dropped what is in the page cache; nobody writes to the file.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EBUSY`, and what the file system says.
    pub(crate) fn learn(file: &File, kind: FsKind) -> Result<Arc<Self>> {
        let contents = Self::nothing()?;
        let pages = store_file::size(file) / PAGE;
        let mut present = 0;
        let mut run = 0..0;
        allocation::written_ranges(file, kind, |range| {
            if range.start == run.end {
                run.end = range.end;
                return Ok(());
            }
            let run = core::mem::replace(&mut run, range);
            present += contents.add(run, pages)?;
            Ok(())
        })?;
        present += contents.add(run, pages)?;
        if allocation::allocated(file) > present * PAGE {
            let tail = contents.tail.load(Ordering::Relaxed) / PAGE;
            let end = if tail > 0 { tail } else { pages };
            contents.release_absent(file, 0..end);
        }
        Ok(contents)
    }

    /// Adds a range of bytes that was written, of a file of so many whole pages. What is only a part of
    /// a page is none, but the beginning of the last one is remembered. Tells how many pages that are.
    fn add(&self, run: Range<u64>, pages: u64) -> Result<u64> {
        let end = run.end / PAGE;
        if run.end % PAGE != 0 && end + 1 == pages && run.start <= end * PAGE {
            // So that it can be marked when its object's size is known.
            self.reserve(end..pages)?;
            self.tail.store(run.end, Ordering::Relaxed);
        }
        let run = run.start.div_ceil(PAGE)..end.min(pages);
        self.reserve(run.clone())?;
        self.mark(run.clone());
        Ok(run.end.saturating_sub(run.start))
    }

    /// The object's size, in bytes, was told: its last page need not hold more.
    pub(crate) fn sized(&self, size: u64) {
        let tail = self.tail.swap(0, Ordering::Relaxed);
        let page = tail / PAGE;
        if size > page * PAGE && size <= tail {
            self.mark(page..page + 1);
        }
    }

    /// The file was cut: no byte from `size` on is present, nor is the page that holds it.
    pub(crate) fn cut(&self, size: u64) {
        let mut at = size / PAGE;
        loop {
            let mut map = self.map.lock();
            let Some(number) = map.chunks().next(at / CHUNK) else {
                return;
            };
            let end = (number + 1) * CHUNK;
            for part in present::parts(at.max(number * CHUNK)..end) {
                map.forget(&part);
            }
            at = end;
        }
    }

    /// Memory for marking `pages`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn reserve(&self, pages: Range<u64>) -> Result {
        for Part { number, .. } in present::parts(pages) {
            let lacks = self.map.lock().lacks(number);
            if !lacks {
                continue;
            }
            let bits = KBox::init(init::zeroed::<[u64; WORDS]>(), GFP_KERNEL)?;
            let node = RBTreeNode::new(number, Chunk::new(bits), GFP_KERNEL)?;
            let mut map = self.map.lock();
            // Unless somebody was faster.
            let unused = if map.lacks(number) {
                map.chunks().0.insert(node)
            } else {
                Some(node)
            };
            drop(map);
            drop(unused);
        }
        Ok(())
    }

    /// Marks pages as present, for which there is memory.
    fn mark(&self, pages: Range<u64>) {
        for part in present::parts(pages) {
            let unused = self.map.lock().mark(&part);
            drop(unused);
        }
    }

    /// The first page in `pages` that is present, or absent; their end if there is none.
    pub(crate) fn find(&self, pages: Range<u64>, present: bool) -> u64 {
        let mut at = pages.start;
        while at < pages.end {
            let step = self.map.lock().step(at, present);
            match step {
                Step::Found(page) => return page.min(pages.end),
                Step::GoOn(next) => at = next,
                Step::Nowhere => break,
            }
        }
        pages.end
    }

    /// Takes what is allocated to absent pages in `pages` from the file. Nobody fills them meanwhile.
    fn release_absent(&self, file: &File, pages: Range<u64>) {
        let mut at = pages.start;
        loop {
            let start = self.find(at..pages.end, false);
            if start >= pages.end {
                return;
            }
            at = self.find(start..pages.end, true);
            if let Err(error) = allocation::release(file, start * PAGE..at * PAGE) {
                static TOLD: Once = Once::new();
                if TOLD.first() {
                    pr_warn!(
                        "what was not filled stays allocated, and may look like zeros to who reads the store: {:?}\n",
                        error
                    );
                }
            }
        }
    }

    /// Begins to fill a range of bytes. Waits for a fill of a part of it that failed.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn begin_fill(&self, bytes: Range<u64>) -> Result<Filling<'_>> {
        let pages = holes::pages(&bytes);
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
        })
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
}

impl Filling<'_> {
    /// Notes what was written to `file`, from the start of the range on, and tells how much of that
    /// counts: whole pages, and what ends where the object does, at `size` if that is known. The rest of
    /// the range is a hole again, unless it was stored before.
    ///
    /// # Errors
    ///
    /// That of `written`. `EFBIG` if not even one page was written since the task may not write a longer file,
    /// `EIO` if that has another cause.
    pub(crate) fn end(
        self,
        file: &File,
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
        let stored = holes::pages(&(start..counts));
        let all = holes::pages(&(start..end));
        self.contents.mark(stored.clone());
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
        let ended = self
            .contents
            .fills
            .lock()
            .under_way
            .remove_node(&self.number);
        self.contents.fill_ended.notify_all();
        drop(ended);
    }
}
