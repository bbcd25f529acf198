// SPDX-License-Identifier: GPL-2.0

//! With `fetch BYTES`: READs that several readers wait for.
//!
//! Such a READ asks for more than its reader needs, and others will need it soon. Whoever misses a part
//! of what is asked for already waits for the same READ. All who wait are alike: whoever ends the READ
//! tells each of them, and it is cancelled when the last of them is killed. So none of them waits for
//! another one to run, which may be frozen or throttled.
//!
//! Locking: `under_way` is a leaf, held for one search. It is a spinlock since a READ ends wherever the
//! table's effects are carried out; nothing is allocated, freed or waited for below it.

use crate::ondemand::waiter::Waiter;
use core::ops::Range;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::rbtree::RBTreeNode;
use kernel::sync::Arc;
use kernel::sync::SpinLock;

/// The object's place in the request table, and the end of the range in bytes.
type Key = (u32, u64);

/// One READ, and what its readers wait for.
#[pin_data]
pub(crate) struct Fetch {
    object: u32,
    range: Range<u64>,
    #[pin]
    pub(super) waiter: Waiter,
    /// The READ. Set by the reader who queues it, before that reader waits.
    msg_id: AtomicU32,
}

impl Fetch {
    /// A READ of `range` of the object in that place, which is not queued yet, and its entry.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(object: u32, range: Range<u64>) -> Result<(Arc<Self>, Entry)> {
        let fetch = Arc::pin_init(
            pin_init!(Fetch {
                object,
                range,
                waiter <- Waiter::new(),
                msg_id: AtomicU32::new(0),
            }),
            GFP_KERNEL,
        )?;
        let under_way = UnderWay {
            fetch: fetch.clone(),
            readers: 1,
        };
        let node = RBTreeNode::new(fetch.key(), under_way, GFP_KERNEL)?;
        Ok((fetch, Entry(node)))
    }

    fn key(&self) -> Key {
        (self.object, self.range.end)
    }

    /// What is asked for, in bytes.
    pub(super) fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// The READ's msg_id.
    pub(super) fn msg_id(&self) -> u32 {
        self.msg_id.load(Ordering::Relaxed)
    }

    /// The READ was queued, by the reader who made this.
    pub(super) fn set_msg_id(&self, msg_id: u32) {
        self.msg_id.store(msg_id, Ordering::Relaxed);
    }
}

/// A READ that has not ended, and how many readers wait for it: 1 or more.
struct UnderWay {
    fetch: Arc<Fetch>,
    readers: u32,
}

/// What [`Fetches::begin`] enters for a READ with one reader.
pub(super) struct Entry(RBTreeNode<Key, UnderWay>);

/// What the daemon is being asked for.
///
/// # Invariants
///
/// The ranges of an object are not empty and do not overlap.
#[pin_data]
pub(crate) struct Fetches {
    #[pin]
    under_way: SpinLock<RBTree<Key, UnderWay>>,
}

/// Has one more reader wait for a READ that asks for a part of `range`, if there is one.
fn join(
    under_way: &mut RBTree<Key, UnderWay>,
    object: u32,
    range: &Range<u64>,
) -> Option<Arc<Fetch>> {
    // Of those that end behind its start the first is the only one that can begin before its end.
    let behind = (object, range.start.saturating_add(1));
    let key = *under_way.cursor_lower_bound(&behind)?.current().0;
    let UnderWay { fetch, readers } = under_way.get_mut(&key)?;
    if fetch.object != object || fetch.range.start >= range.end {
        return None;
    }
    *readers += 1;
    Some(fetch.clone())
}

impl Fetches {
    /// Nothing is asked for.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            under_way <- new_spinlock!(RBTree::new(), "ondemand_fetches"),
        })
    }

    /// Has one more reader wait for a READ that asks for a part of `range`, if there is one.
    pub(super) fn join(&self, object: u32, range: &Range<u64>) -> Option<Arc<Fetch>> {
        join(&mut self.under_way.lock(), object, range)
    }

    /// Enters a READ with one reader, unless there is one for a part of its range: then that reader waits
    /// for the other one, which is returned.
    pub(super) fn begin(&self, fetch: &Fetch, entry: Entry) -> Option<Arc<Fetch>> {
        let mut under_way = self.under_way.lock();
        let other = join(&mut under_way, fetch.object, &fetch.range);
        if other.is_none() {
            // INVARIANT: Just looked for, so that nothing is replaced either.
            let _none = under_way.insert(entry.0);
        }
        other
    }

    /// One reader of a READ was killed. Tells whether it was the last one, and the READ has not ended:
    /// then it is not waited for any more.
    pub(super) fn leave(&self, fetch: &Arc<Fetch>) -> bool {
        let mut under_way = self.under_way.lock();
        match under_way.get_mut(&fetch.key()) {
            Some(it) if Arc::ptr_eq(&it.fetch, fetch) => {
                it.readers -= 1;
                if it.readers > 0 {
                    return false;
                }
            }
            _ => return false,
        }
        let left = under_way.remove_node(&fetch.key());
        drop(under_way);
        left.is_some()
    }

    /// A READ has ended, with 0 or a negative error number: tells its readers.
    pub(super) fn end(&self, fetch: &Arc<Fetch>, result: i32) {
        let mut under_way = self.under_way.lock();
        // Another one may be under way for the same range if all readers of this one were killed.
        let ended = match under_way.get(&fetch.key()) {
            Some(it) if Arc::ptr_eq(&it.fetch, fetch) => under_way.remove_node(&fetch.key()),
            _ => None,
        };
        drop(under_way);
        drop(ended);
        fetch.waiter.end(result);
    }
}
