// SPDX-License-Identifier: GPL-2.0

//! How an object's file gets its name, and the end of an object.
//!
//! A new file is committed soon after its first data was stored, by a work item, since the commit
//! waits for the disk: what a mount has fetched in weeks is not lost with the machine. A commit that fails
//! is tried again, later and later, as long as the object is bound. What is
//! stored after that goes to the committed file.

use crate::fscache::cookie::Flag;
use crate::kcompat::delayed_work::impl_has_delayed_work;
use crate::kcompat::delayed_work::DelayedWork;
use crate::kcompat::delayed_work::DelayedWorkItem;
use crate::kcompat::time::seconds_in_jiffies;
use crate::object::Backing;
use crate::object::Bound;
use crate::object::Object;
use crate::object::COMMIT;
use crate::stop_points::Place;
use crate::store::namei;
use crate::store::namei::Stored;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::sync::Arc;

/// A commit that has failed is tried again after a second, and after twice as long each time, so often: about a minute.
const COMMIT_AGAIN_DOUBLINGS: u32 = 6;

impl_has_delayed_work! {
    impl HasDelayedWork<COMMIT> for Object { self.commit }
}

impl DelayedWorkItem<COMMIT> for Object {
    fn run(object: Arc<Object>) {
        object.store.stops().stop_at(Place::CommitWork);
        object.commit_early();
    }
}

impl Object {
    /// Sets the attributes of the file, and gives it its name, unless both are done. Called with the store's credentials
    /// in force.
    ///
    /// # Errors
    ///
    /// As [`namei::commit`].
    fn commit(&self, bound: &Bound, stored: &mut Stored) -> Result {
        namei::commit(&bound.cookie, stored, |file| {
            let dir = bound.volume.fanout(&self.store, self.keys.hash)?;
            dir.link(file, self.file_name()?)
        })
    }

    /// Notes that data was stored.
    pub(crate) fn filled(self: &Arc<Self>) {
        if self.has_data.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(bound) = &self.backing.lock().bound {
            bound.cookie.set_flag(Flag::HaveData, true);
        }
        self.queue_commit();
    }

    /// Has the file committed, by a work item. One that is queued already, or waits to try again, will find it.
    pub(super) fn queue_commit(self: &Arc<Self>) {
        DelayedWork::<_, COMMIT>::enqueue(self, 0);
    }

    /// Commits a new file whose object is open. If that fails, it is tried again: a mount may bring in nothing more,
    /// and last for weeks. Only the first failure in a row is told, and the last, at the withdrawal.
    fn commit_early(self: &Arc<Self>) {
        let mut backing = self.backing.lock();
        if backing.size.is_none() {
            return;
        }
        let Backing {
            bound,
            stored,
            failed_commits,
            ..
        } = &mut *backing;
        let (Some(bound), Some(stored)) = (bound, stored) else {
            return;
        };
        if !stored.unnamed {
            return;
        }
        let cred = self.store.cred();
        let committed = cred.run(|| self.commit(bound, stored));
        if committed.is_ok() {
            *failed_commits = 0;
            return;
        }
        let failures = *failed_commits;
        *failed_commits = failures.saturating_add(1);
        drop(backing);
        if failures == 0 {
            self.warn_if_failed("committing the file early", committed);
        }
        let seconds = 1 << failures.min(COMMIT_AGAIN_DOUBLINGS);
        DelayedWork::<_, COMMIT>::enqueue(self, seconds_in_jiffies(seconds));
    }

    /// Ends the fscache half: commits or deletes the file and gives the cookie back. No access is
    /// under way; a `copen` in progress is waited for, and so is the disk, a daemon is not.
    pub(crate) fn finish(self: &Arc<Self>) {
        self.engine.drop_object(self);
        self.store.stops().stop_at(Place::FinishDropped);
        let mut backing = self.backing.lock();
        let (bound, stored) = (backing.bound.take(), backing.stored.take());
        let opened = backing.size.is_some();
        let current = self.current.lock().take();
        drop(backing);
        drop(current);
        self.stop_settling();
        DelayedWork::<_, COMMIT>::shut(self);
        let (Some(bound), Some(mut stored)) = (bound, stored) else {
            return;
        };
        self.store.cred().run(|| {
            let mut retired = bound.cookie.take_flag(Flag::Retired);
            if opened && !retired {
                let settled = stored.contents.settle_rest(stored.file.file());
                self.warn_if_failed("writing filled data to the disk", settled);
                retired = stored.contents.is_spoiled();
            }
            if !retired && opened {
                let committed = self.commit(&bound, &mut stored);
                self.warn_if_failed("committing the file, its data is lost", committed);
            } else if retired && !stored.unnamed {
                let deleted = namei::delete(&self.store, &bound.volume, self.keys.hash, &stored);
                self.warn_if_failed("deleting the file", deleted);
            }
            // The mark on the file goes before the object is uncounted: the next user may come then.
            drop(stored);
            drop(bound);
        })
    }

    pub(super) fn warn_if_failed(&self, what: &str, result: Result) {
        if let Err(error) = result {
            pr_warn!("{}: {} failed: {:?}\n", self, what, error);
        }
    }
}
