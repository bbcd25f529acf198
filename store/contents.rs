// SPDX-License-Identifier: GPL-2.0

//! What a file of the store holds.
//!
//! The file system is asked once, when a file that exists is looked up ([`Contents::learn`]). From then on
//! a map of the writes that were completed decides: what the file system calls data depends on who else
//! reads the file (`vfs/allocation.rs`), and an extent that a failed write has left is none.
//!
//! Locking: `map` is a leaf, held for one chunk.

use self::filling::Fills;
use crate::kcompat::alloc;
use crate::kcompat::fs::File;
use crate::kcompat::print::Once;
use crate::store::pages::PAGE;
use crate::store::present;
use crate::store::present::Chunk;
use crate::store::present::Chunks;
use crate::store::present::Map;
use crate::store::present::Part;
use crate::store::present::Step;
use crate::store::present::CHUNK;
use crate::store::present::WORDS;
use crate::vfs::allocation;
use crate::vfs::store_file;
use crate::vfs::superblock::FsKind;
use core::ops::Range;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;
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

mod filling;

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

/// Which pages of one file are present.
#[pin_data]
pub(crate) struct Contents {
    #[pin]
    map: SpinLock<Map<Tree>>,
    /// In the file's last page there is data up to (not including) this byte, and no further; 0: there is
    /// no such part of a page.
    tail: AtomicU64,
    /// See [`Contents::is_spoiled`].
    spoiled: AtomicBool,
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
                spoiled: AtomicBool::new(false),
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
            let next = self.map.lock().chunks().next(at / CHUNK);
            let Some(number) = next else {
                return;
            };
            let end = (number + 1) * CHUNK;
            self.forget(at.max(number * CHUNK)..end);
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
            let bits = alloc::zeroed::<WORDS>()?;
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

    /// Marks pages as absent.
    fn forget(&self, pages: Range<u64>) {
        for part in present::parts(pages) {
            self.map.lock().forget(&part);
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

    /// Takes what is allocated to absent pages in `pages` from the file. Nobody fills them meanwhile. Tells whether all
    /// of it is gone.
    fn release_absent(&self, file: &File, pages: Range<u64>) -> bool {
        let mut at = pages.start;
        let mut all = true;
        loop {
            let start = self.find(at..pages.end, false);
            if start >= pages.end {
                return all;
            }
            at = self.find(start..pages.end, true);
            if let Err(error) = allocation::release(file, start * PAGE..at * PAGE) {
                all = false;
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
}
