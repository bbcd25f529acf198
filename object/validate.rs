// SPDX-License-Identifier: GPL-2.0

//! What is done with an object's file: finding it, checking it when the object is opened, replacing it,
//! changing its size.

use crate::errno::Errno;
use crate::fscache::cookie::Cookie;
use crate::fscache::cookie::Flag;
use crate::object::Backing;
use crate::object::Current;
use crate::object::Object;
use crate::store::identity::Token;
use crate::store::identity::Version;
use crate::store::namei;
use crate::store::pages::padded;
use crate::store::pages::PAGE;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::sync::Arc;

impl Object {
    /// Finds or makes the file, unless there is one.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if the object is withdrawn, or the disk is too full for a new file; `ENAMETOOLONG` if its
    /// name would be too long; `EBUSY` if somebody else uses the file or its directory; what the file
    /// system says. Nothing has changed then.
    pub(super) fn find(&self, backing: &mut Backing) -> Result {
        if backing.stored.is_some() {
            return Ok(());
        }
        let bound = backing.bound.as_ref().ok_or(Errno::ENOBUFS)?;
        let name = self.file_name()?;
        let dirs = self.store.dirs()?;
        let cred = self.store.cred();
        let stored =
            cred.run(|| namei::look_up(&self.store, &dirs, &bound.volume, self.keys.hash, name))?;
        *self.current.lock() = Some(Current {
            file: stored.file.file().clone(),
            writer: stored.file.writer().clone(),
            contents: stored.contents.clone(),
            size: None,
            new: stored.unnamed,
        });
        backing.stored = Some(stored);
        Ok(())
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
        padded(size)
            .filter(|padded| *padded <= self.store.max_file_size())
            .ok_or(EINVAL)
    }

    fn take(&self, version: &Version) -> Result {
        let mut backing = self.backing.lock();
        let Version { size, token } = *version;
        match (backing.size, &mut backing.stored) {
            (None, _) => {}
            (Some(known), _) if known != size => return Err(EINVAL),
            (Some(_), Some(stored)) => {
                return self
                    .store
                    .cred()
                    .run(|| namei::is_same_version(stored, &token, self));
            }
            (Some(_), None) => return Err(EIO),
        }
        let padded = self.padded(size)?;
        let told = i64::try_from(size).map_err(|_| EINVAL)?;
        if backing.bound.is_none() {
            return Err(EIO);
        }
        self.find(&mut backing)?;

        self.store.cred().run(|| {
            let Backing { bound, stored, .. } = &mut *backing;
            let (Some(bound), Some(stored)) = (bound, stored) else {
                return Err(EIO);
            };
            bound.cookie.set_object_size(told);
            if !stored.unnamed && !namei::is_coherent(stored, &bound.cookie, &token, self)? {
                *stored = namei::create(&self.store, &bound.volume, self.keys.hash)?;
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
            backing.size = Some(size);
            let old = self.current.lock().replace(current);
            drop(backing);
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
        let mut backing = self.backing.lock();
        self.store.cred().run(|| {
            let size = backing.size;
            let Backing { bound, stored, .. } = &mut *backing;
            let Some(bound) = bound else {
                cookie.resume_after_invalidation();
                return Ok(());
            };
            let mut new = namei::create(&self.store, &bound.volume, self.keys.hash)?;
            new.token = stored.as_ref().map_or(Token::UNTOLD, |stored| stored.token);
            if let Some(padded) = size.and_then(padded) {
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
                let deleted = namei::delete(&self.store, &bound.volume, self.keys.hash, old);
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
        let mut backing = self.backing.lock();
        let bytes = u64::try_from(size).map_err(|_| EINVAL)?;
        let padded = self.padded(bytes)?;
        let Backing {
            stored,
            bound,
            size: its_size,
            ..
        } = &mut *backing;
        let (Some(bound), Some(stored), Some(old)) = (bound, stored, its_size) else {
            return Err(EIO);
        };
        self.store.cred().run(|| {
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
}
