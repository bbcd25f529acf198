// SPDX-License-Identifier: GPL-2.0

//! What is done with an object's file: finding it, checking it when the object is opened, replacing it,
//! committing it.
//!
//! A new file is committed soon after its first data was stored, by a work item, since the commit
//! waits for the disk: what a mount has fetched in weeks is not lost with the machine. A commit that fails
//! is tried again, later and later, as long as the object is bound. What is
//! stored after that goes to the committed file.

use crate::cache::PAGE;
use crate::errno::Errno;
use crate::fscache::cookie::Cookie;
use crate::fscache::cookie::Flag;
use crate::kcompat::delayed_work::impl_has_delayed_work;
use crate::kcompat::delayed_work::DelayedWork;
use crate::kcompat::delayed_work::DelayedWorkItem;
use crate::kcompat::time::seconds_in_jiffies;
use crate::object::Current;
use crate::object::Object;
use crate::object::Store;
use crate::object::COMMIT;
use crate::stop_points::Place;
use crate::store::identity::Token;
use crate::store::identity::Version;
use crate::store::namei;
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
        object.cache.daemon().stop_at(Place::CommitWork);
        object.commit_early();
    }
}

impl Object {
    /// Finds or makes the file, unless there is one.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if the object is withdrawn, or the disk is too full for a new file; `ENAMETOOLONG` if its
    /// name would be too long; `EBUSY` if somebody else uses the file or its directory; what the file
    /// system says. Nothing has changed then.
    pub(crate) fn find(&self, store: &mut Store) -> Result {
        if store.stored.is_some() {
            return Ok(());
        }
        let bound = store.bound.as_ref().ok_or(Errno::ENOBUFS)?;
        let name = self.file_name()?;
        let live = self.cache.live()?;
        let cred = self.cache.cred();
        let stored = cred.run(|| namei::look_up(&live, &bound.volume, self.key_hash, name))?;
        *self.current.lock() = Some(Current {
            file: stored.file.file().clone(),
            writer: stored.file.writer().clone(),
            contents: stored.contents.clone(),
            size: None,
            new: stored.unnamed,
        });
        store.stored = Some(stored);
        Ok(())
    }

    /// Notes that data was stored.
    pub(crate) fn filled(self: &Arc<Self>) {
        if self.has_data.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(bound) = &self.store.lock().bound {
            bound.cookie.set_flag(Flag::HaveData, true);
        }
        self.queue_commit();
    }

    /// Has the file committed, by a work item. One that is queued already, or waits to try again, will find it.
    fn queue_commit(self: &Arc<Self>) {
        DelayedWork::<_, COMMIT>::enqueue(self, 0);
    }

    /// Commits a new file whose object is open. If that fails, it is tried again: a mount may bring in nothing more,
    /// and last for weeks. Only the first failure in a row is told, and the last, at the withdrawal.
    fn commit_early(self: &Arc<Self>) {
        let mut store = self.store.lock();
        if store.size.is_none() {
            return;
        }
        let Store {
            bound,
            stored,
            failed_commits,
            ..
        } = &mut *store;
        let (Some(bound), Some(stored)) = (bound, stored) else {
            return;
        };
        if !stored.unnamed {
            return;
        }
        let cred = self.cache.cred();
        let committed = cred.run(|| namei::commit(bound, stored, self));
        if committed.is_ok() {
            *failed_commits = 0;
            return;
        }
        let failures = *failed_commits;
        *failed_commits = failures.saturating_add(1);
        drop(store);
        if failures == 0 {
            self.warn_if_failed("committing the file early", committed);
        }
        let seconds = 1 << failures.min(COMMIT_AGAIN_DOUBLINGS);
        DelayedWork::<_, COMMIT>::enqueue(self, seconds_in_jiffies(seconds));
    }

    /// Checks the file against the version that a daemon has told, the first time by its attributes,
    /// and replaces a stale one; then gives it that size. A file that the lookup could not find or make
    /// is found or made first.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a size that the file system cannot hold or that is not the one of an earlier
    /// opening; `ESTALE` for another token than at an earlier one; `EIO` if the object is withdrawn; those of
    /// [`Object::find`]; what the file system says.
    pub(crate) fn validate(self: &Arc<Self>, version: &Version) -> Result {
        self.take(version)?;
        if self.has_data.load(Ordering::Relaxed) {
            self.queue_commit();
        }
        Ok(())
    }

    /// The size of the file for an object of `size` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the file system cannot hold it.
    fn padded(&self, size: u64) -> Result<u64> {
        namei::padded(size)
            .filter(|padded| *padded <= self.cache.max_file_size())
            .ok_or(EINVAL)
    }

    fn take(&self, version: &Version) -> Result {
        let mut store = self.store.lock();
        let Version { size, token } = *version;
        match (store.size, &mut store.stored) {
            (None, _) => {}
            (Some(known), _) if known != size => return Err(EINVAL),
            (Some(_), Some(stored)) => {
                return self
                    .cache
                    .cred()
                    .run(|| namei::is_same_version(stored, &token, self));
            }
            (Some(_), None) => return Err(EIO),
        }
        let padded = self.padded(size)?;
        let told = i64::try_from(size).map_err(|_| EINVAL)?;
        if store.bound.is_none() {
            return Err(EIO);
        }
        self.find(&mut store)?;

        self.cache.cred().run(|| {
            let Store { bound, stored, .. } = &mut *store;
            let (Some(bound), Some(stored)) = (bound, stored) else {
                return Err(EIO);
            };
            bound.cookie.set_object_size(told);
            if !stored.unnamed && !namei::is_coherent(stored, &bound.cookie, &token, self)? {
                *stored = namei::create(&self.cache, &bound.volume, self.key_hash)?;
            }
            stored.token = token;
            if stored.unnamed {
                bound.cookie.set_flag(Flag::NeedsUpdate, true);
            } else {
                stored.file.touch();
            }
            namei::set_padded_size(&stored.file, padded)?;
            stored.contents.cut(padded);
            stored.contents.sized(size);
            bound.cookie.set_flag(Flag::NoDataToRead, size == 0);
            let current = Current {
                file: stored.file.file().clone(),
                writer: stored.file.writer().clone(),
                contents: stored.contents.clone(),
                size: Some(size),
                new: stored.unnamed,
            };
            store.size = Some(size);
            let old = self.current.lock().replace(current);
            drop(store);
            drop(old);
            Ok(())
        })
    }

    /// Puts an empty file in place of the object's.
    ///
    /// # Errors
    ///
    /// What the file system says; the object keeps its file then.
    pub(crate) fn invalidate(&self, cookie: &Cookie) -> Result {
        let mut store = self.store.lock();
        self.cache.cred().run(|| {
            let size = store.size;
            let Store { bound, stored, .. } = &mut *store;
            let Some(bound) = bound else {
                cookie.resume_after_invalidation();
                return Ok(());
            };
            let mut new = namei::create(&self.cache, &bound.volume, self.key_hash)?;
            new.token = stored.as_ref().map_or(Token::UNTOLD, |stored| stored.token);
            if let Some(padded) = size.and_then(namei::padded) {
                namei::set_padded_size(&new.file, padded)?;
            }
            let current = Current {
                file: new.file.file().clone(),
                writer: new.file.writer().clone(),
                contents: new.contents.clone(),
                size,
                new: true,
            };
            let old = stored.replace(new);
            let old_current = self.current.lock().replace(current);
            self.has_data.store(false, Ordering::Relaxed);
            cookie.set_flag(Flag::NeedsUpdate, true);
            cookie.resume_after_invalidation();
            if let Some(old) = old.as_ref().filter(|old| !old.unnamed) {
                // The object has its new file all the same; the old one is replaced at the commit.
                let deleted = namei::delete(&bound.volume, self.key_hash, old);
                self.warn_if_failed("deleting the old file", deleted);
            }
            drop((old, old_current));
            Ok(())
        })
    }

    /// Gives the object another size. What lies beyond a smaller one is discarded.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a size that the file system cannot hold; `EIO` if the object is withdrawn or
    /// was not opened yet; what the file system says.
    pub(crate) fn resize(&self, size: i64) -> Result {
        let mut store = self.store.lock();
        let bytes = u64::try_from(size).map_err(|_| EINVAL)?;
        let padded = self.padded(bytes)?;
        let Store {
            stored,
            bound,
            size: its_size,
            ..
        } = &mut *store;
        let (Some(bound), Some(stored), Some(old)) = (bound, stored, its_size) else {
            return Err(EIO);
        };
        self.cache.cred().run(|| {
            if bytes < *old {
                stored.contents.cut(padded);
                stored.file.set_size(bytes)?;
            } else if bytes > *old && *old % PAGE != 0 {
                // In its last page there is no more than up to the old end.
                let whole = *old - *old % PAGE;
                stored.contents.cut(whole);
                stored.file.set_size(whole)?;
            }
            stored.file.set_size(padded)?;
            bound.cookie.set_object_size(size);
            bound.cookie.set_flag(Flag::NeedsUpdate, true);
            *old = bytes;
            if let Some(current) = &mut *self.current.lock() {
                current.size = Some(bytes);
            }
            Ok(())
        })
    }

    /// Ends the fscache half: commits or deletes the file and gives the cookie back. No access is
    /// under way; a `copen` in progress is waited for, and so is the disk, a daemon is not.
    pub(crate) fn finish(self: &Arc<Self>) {
        self.cache.engine().drop_object(self);
        self.cache.daemon().stop_at(Place::FinishDropped);
        let mut store = self.store.lock();
        let (bound, stored) = (store.bound.take(), store.stored.take());
        let opened = store.size.is_some();
        let current = self.current.lock().take();
        drop(store);
        drop(current);
        self.stop_settling();
        DelayedWork::<_, COMMIT>::shut(self);
        let (Some(bound), Some(mut stored)) = (bound, stored) else {
            return;
        };
        self.cache.cred().run(|| {
            let mut retired = bound.cookie.take_flag(Flag::Retired);
            if opened && !retired {
                let settled = stored.contents.settle_rest(stored.file.file());
                self.warn_if_failed("writing filled data to the disk", settled);
                retired = stored.contents.is_spoiled();
            }
            if !retired && opened {
                let committed = namei::commit(&bound, &mut stored, self);
                self.warn_if_failed("committing the file, its data is lost", committed);
            } else if retired && !stored.unnamed {
                let deleted = namei::delete(&bound.volume, self.key_hash, &stored);
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
