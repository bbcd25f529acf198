// SPDX-License-Identifier: GPL-2.0

//! What an object's daemon is being asked for, so that it is asked for it once.
//!
//! With `fetch BYTES` a READ asks for more than its reader needs, and others will need it soon. Whoever
//! misses a part of what is asked for already waits for that answer; if who has asked is killed, the
//! next one asks.
//!
//! Locking: `under_way` is a leaf. It is not held while anybody waits.

use crate::errno::Errno;
use crate::kcompat::completion::Completion;
use core::ops::Range;
use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering;
use kernel::error::to_result;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::Arc;
use kernel::sync::Mutex;

/// One range that the daemon is being asked for.
#[pin_data]
pub(crate) struct Fetch {
    range: Range<u64>,
    #[pin]
    ended: Completion,
    /// 0 or a negative error number; set before it has ended.
    result: AtomicI32,
}

impl Fetch {
    /// Whether it brings the byte at `pos`.
    pub(crate) fn covers(&self, pos: u64) -> bool {
        self.range.contains(&pos)
    }

    /// Waits until who has asked has got an answer; `false` if they were killed before.
    ///
    /// # Errors
    ///
    /// `EINTR` if the waiting task was killed; why the asking has failed.
    pub(crate) fn wait(&self) -> Result<bool> {
        self.ended.wait_killable_freezable().map_err(|_| EINTR)?;
        match self.result.load(Ordering::Relaxed) {
            killed if killed == Errno::EINTR.to_raw() => Ok(false),
            result => to_result(result).map(|()| true),
        }
    }
}

/// What one object's daemon is being asked for.
///
/// # Invariants
///
/// The ranges do not overlap.
#[pin_data]
pub(crate) struct Fetches {
    /// By the ends of their ranges.
    #[pin]
    under_way: Mutex<RBTree<u64, Arc<Fetch>>>,
}

/// Who asks for a range.
pub(crate) enum Turn<'a> {
    /// The caller.
    Ours(Asking<'a>),
    /// Somebody who has begun to ask for a part of it.
    Theirs(Arc<Fetch>),
}

/// The right, and the duty, to ask for a range. Those who wait are told when it is dropped: that who
/// asked was killed, unless [`Asking::end`] says otherwise.
pub(crate) struct Asking<'a> {
    fetches: &'a Fetches,
    fetch: Arc<Fetch>,
}

impl Fetches {
    /// Nothing is asked for.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            under_way <- new_mutex!(RBTree::new(), "cachefiles_fetches"),
        })
    }

    /// Begins to ask for `range`, which is not empty, unless somebody asks for a part of it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn begin(&self, range: Range<u64>) -> Result<Turn<'_>> {
        let mut under_way = self.under_way.lock();
        // Of those that end behind its start the first is the only one that can begin before its end.
        if let Some(next) = under_way.cursor_lower_bound(&range.start.saturating_add(1)) {
            let (_, next) = next.current();
            if next.range.start < range.end {
                return Ok(Turn::Theirs(next.clone()));
            }
        }
        let end = range.end;
        let fetch = Arc::pin_init(
            pin_init!(Fetch {
                range,
                ended <- Completion::new(),
                result: AtomicI32::new(Errno::EINTR.to_raw()),
            }),
            GFP_KERNEL,
        )?;
        // INVARIANT: Just looked for.
        under_way.try_create_and_insert(end, fetch.clone(), GFP_KERNEL)?;
        Ok(Turn::Ours(Asking {
            fetches: self,
            fetch,
        }))
    }
}

impl Asking<'_> {
    /// Tells those who wait how the asking has ended.
    pub(crate) fn end(self, outcome: Result) {
        let result = outcome.err().map_or(0, |error| error.to_errno());
        self.fetch.result.store(result, Ordering::Relaxed);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let ended = self
            .fetches
            .under_way
            .lock()
            .remove_node(&self.fetch.range.end);
        self.fetch.ended.complete_all();
        drop(ended);
    }
}
