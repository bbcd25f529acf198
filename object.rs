// SPDX-License-Identifier: GPL-2.0

//! What stands behind an fscache cookie: a file of the store, and an entry in the request table.
//!
//! An object has two lifetimes. Its fscache half ([`Bound`], the cookie, the volume and the file)
//! ends with `withdraw_cookie`. Its on-demand half lives on as long as an anonymous fd names it, so
//! that a daemon that is slow to close an fd does not hold up a remount.
//!
//! Locking: `store` is held while the file is checked, replaced or committed: it may wait for the
//! disk, never for a daemon. `current` is a spinlock inside it, for those who only need the file.

use crate::cache::Cache;
use crate::errno::Errno;
use crate::fscache::cache::CountedObject;
use crate::fscache::cookie::Cookie;
use crate::fscache::cookie::Flag;
use crate::kcompat::fs::File;
use crate::kcompat::poll::WaitQueue;
use crate::kcompat::print::Once;
use crate::key;
use crate::key::FileName;
use crate::namei;
use crate::ondemand::message::Message;
use crate::vfs::store_file::StoreFile;
use crate::volume::Volume;
use core::fmt;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;
use kernel::new_mutex;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::str::BStr;
use kernel::sync::Arc;
use kernel::sync::Mutex;
use kernel::sync::SpinLock;
use kernel::types::ARef;
use kernel::workqueue::new_work;
use kernel::workqueue::Work;

/// The fscache half of an object.
pub(crate) struct Bound {
    pub(crate) volume: Arc<Volume>,
    /// Given back before the object is uncounted.
    pub(crate) cookie: ARef<Cookie>,
    _counted: CountedObject,
}

/// The file of an object.
pub(crate) struct Stored {
    pub(crate) file: StoreFile,
    /// It has no name yet: it is committed when the object is withdrawn.
    pub(crate) unnamed: bool,
}

/// An object's part that is worked on with the disk.
pub(crate) struct Store {
    /// Before `bound`: the mark on the file goes before the object is uncounted, since the next
    /// user may come then.
    pub(crate) stored: Option<Stored>,
    pub(crate) bound: Option<Bound>,
    /// Bytes, as the daemon told them when the object was opened for the first time.
    pub(crate) size: Option<u64>,
}

/// What readers and writers of the file need.
#[derive(Clone)]
pub(crate) struct Current {
    /// The file.
    pub(crate) file: ARef<File>,
    /// Where the object ends, in bytes; not known before it was opened.
    pub(crate) size: Option<u64>,
    /// The file was made for this object, so that nothing vouches for what was in it before.
    pub(crate) new: bool,
}

/// An object.
#[pin_data]
pub(crate) struct Object {
    cache: Arc<Cache>,
    /// Its place in the request table; set before anybody else sees the object.
    number: AtomicU32,
    volume_key: KVec<u8>,
    cookie_key: KVec<u8>,
    name: FileName,
    key_hash: u32,
    /// Readers that wait for the first opening.
    #[pin]
    opened: WaitQueue,
    #[pin]
    pub(crate) reopen: Work<Object>,
    #[pin]
    store: Mutex<Store>,
    #[pin]
    current: SpinLock<Option<Current>>,
    /// fscache was told that data was stored.
    has_data: AtomicBool,
}

impl Object {
    /// Finds or makes the file of a cookie, and sends the object's first OPEN.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG` for a key whose file name would be too long, `EOPNOTSUPP` for a cookie of a
    /// netfs that does not let the cache tell the size, `EBUSY` if the file is in use, `ENOBUFS`
    /// if the disk is too full, `EIO` if the cache is dead, and what the file system says.
    pub(crate) fn lookup(volume: &Arc<Volume>, cookie: &Cookie) -> Result<Arc<Self>> {
        let cache = volume.cache();
        if !cookie.wants_cache_size() {
            static TOLD: Once = Once::new();
            if TOLD.first() {
                pr_warn!("only netfs's that let the cache tell the size are served (EROFS)\n");
            }
            return Err(Errno::EOPNOTSUPP.into());
        }
        let name = key::cook(cookie.key())?;
        let mut cookie_key = KVec::new();
        cookie_key.extend_from_slice(cookie.key(), GFP_KERNEL)?;
        let mut volume_key = KVec::new();
        volume_key.extend_from_slice(volume.key(), GFP_KERNEL)?;

        let live = cache.live()?;
        let bound = Bound {
            volume: volume.clone(),
            cookie: cookie.into(),
            _counted: live.fscache().count_object(),
        };
        let stored = {
            let _scope = cache.cred().scope();
            namei::look_up(&live, volume, cookie.key_hash(), name.as_bytes())?
        };
        let current = Current {
            file: stored.file.file().clone(),
            size: None,
            new: stored.unnamed,
        };
        let store = Store {
            stored: Some(stored),
            bound: Some(bound),
            size: None,
        };
        let object = Arc::pin_init(
            pin_init!(Self {
                cache: cache.clone(),
                number: AtomicU32::new(0),
                volume_key,
                cookie_key,
                name,
                key_hash: cookie.key_hash(),
                opened <- WaitQueue::new(),
                reopen <- new_work!("cachefiles_reopen"),
                store <- new_mutex!(store, "cachefiles_store"),
                current <- new_spinlock!(Some(current), "cachefiles_current"),
                has_data: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )?;
        cache.engine().admit(&object)?;
        cache.engine().send_open(&object);
        Ok(object)
    }

    /// The cache.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The place in the request table.
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// Sets the place. Called by the table's keeper before the object can be found in it.
    pub(crate) fn set_number(&self, number: u32) {
        self.number.store(number, Ordering::Relaxed);
    }

    /// The queue of those who wait for the first opening.
    pub(crate) fn opened(&self) -> &WaitQueue {
        &self.opened
    }

    /// The name of its file.
    pub(crate) fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// The hash that chooses its directory.
    pub(crate) fn key_hash(&self) -> u32 {
        self.key_hash
    }

    /// The OPEN that asks for this object.
    pub(crate) fn open_message(&self, fd: i32) -> Message<'_> {
        Message::Open {
            fd,
            volume_key: &self.volume_key,
            cookie_key: &self.cookie_key,
        }
    }

    /// The file and the size.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if the object is withdrawn.
    pub(crate) fn current(&self) -> Result<Current> {
        self.current.lock().clone().ok_or(Errno::ENOBUFS.into())
    }

    /// Notes that data was stored.
    pub(crate) fn filled(&self) {
        if self.has_data.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(bound) = &self.store.lock().bound {
            bound.cookie.set_flag(Flag::HaveData, true);
        }
    }

    /// Checks the file against the size that a daemon has told, the first time by its attribute,
    /// and replaces a stale one; then gives it that size.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a size that the file system cannot hold or that is not the one of an earlier
    /// opening; `EIO` if the object is withdrawn; what the file system says.
    pub(crate) fn validate(&self, size: u64) -> Result {
        let mut store = self.store.lock();
        if let Some(known) = store.size {
            return if known == size { Ok(()) } else { Err(EINVAL) };
        }
        let padded = namei::padded(size)
            .filter(|padded| *padded <= self.cache.max_file_size())
            .ok_or(EINVAL)?;
        let told = i64::try_from(size).map_err(|_| EINVAL)?;

        let _scope = self.cache.cred().scope();
        let Store { bound, stored, .. } = &mut *store;
        let (Some(bound), Some(stored)) = (bound, stored) else {
            return Err(EIO);
        };
        bound.cookie.set_object_size(told);
        if !stored.unnamed && !namei::is_coherent(stored, &bound.cookie)? {
            *stored = namei::create(&self.cache, &bound.volume, self.key_hash)?;
        }
        if stored.unnamed {
            bound.cookie.set_flag(Flag::NeedsUpdate, true);
        } else {
            stored.file.touch();
        }
        namei::set_padded_size(&stored.file, padded)?;
        bound.cookie.set_flag(Flag::NoDataToRead, size == 0);
        let current = Current {
            file: stored.file.file().clone(),
            size: Some(size),
            new: stored.unnamed,
        };
        store.size = Some(size);
        let old = self.current.lock().replace(current);
        drop(store);
        drop(old);
        Ok(())
    }

    /// Puts an empty file in place of the object's.
    ///
    /// # Errors
    ///
    /// What the file system says; the object keeps its file then.
    pub(crate) fn invalidate(&self, cookie: &Cookie) -> Result {
        let mut store = self.store.lock();
        let _scope = self.cache.cred().scope();
        let size = store.size;
        let Store { bound, stored, .. } = &mut *store;
        let (Some(bound), Some(stored)) = (bound, stored) else {
            cookie.resume_after_invalidation();
            return Ok(());
        };
        let new = namei::create(&self.cache, &bound.volume, self.key_hash)?;
        if let Some(padded) = size.and_then(namei::padded) {
            namei::set_padded_size(&new.file, padded)?;
        }
        let current = Current {
            file: new.file.file().clone(),
            size,
            new: true,
        };
        let old = core::mem::replace(stored, new);
        let old_current = self.current.lock().replace(current);
        cookie.set_flag(Flag::NeedsUpdate, true);
        cookie.resume_after_invalidation();
        if !old.unnamed {
            // The object has its new file all the same; the old one is replaced at the commit.
            let deleted = namei::delete(&bound.volume, self.key_hash, &old);
            self.warn_if_failed("deleting the old file", deleted);
        }
        drop((old, old_current));
        Ok(())
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
        let padded = namei::padded(bytes)
            .filter(|padded| *padded <= self.cache.max_file_size())
            .ok_or(EINVAL)?;
        let (Some(bound), Some(stored), Some(old)) = (&store.bound, &store.stored, store.size)
        else {
            return Err(EIO);
        };
        let _scope = self.cache.cred().scope();
        if bytes < old {
            stored.file.set_size(bytes)?;
        }
        stored.file.set_size(padded)?;
        bound.cookie.set_object_size(size);
        bound.cookie.set_flag(Flag::NeedsUpdate, true);
        store.size = Some(bytes);
        if let Some(current) = &mut *self.current.lock() {
            current.size = Some(bytes);
        }
        Ok(())
    }

    /// Has fscache withdraw the cookie, as soon as no access to it is under way.
    pub(crate) fn withdraw(&self) {
        if let Some(bound) = &self.store.lock().bound {
            bound.cookie.withdraw();
        }
    }

    /// Ends the fscache half: commits or deletes the file and gives the cookie back. No access is
    /// under way; a `copen` in progress is waited for, a daemon is not.
    pub(crate) fn finish(&self) {
        self.cache.engine().drop_object(self);
        let mut store = self.store.lock();
        let (bound, stored) = (store.bound.take(), store.stored.take());
        let opened = store.size.is_some();
        let current = self.current.lock().take();
        drop(store);
        drop(current);
        let (Some(bound), Some(stored)) = (bound, stored) else {
            return;
        };
        let _scope = self.cache.cred().scope();
        if bound.cookie.take_flag(Flag::Retired) {
            if !stored.unnamed {
                let deleted = namei::delete(&bound.volume, self.key_hash, &stored);
                self.warn_if_failed("deleting the file", deleted);
            }
        } else if opened {
            let committed = namei::commit(&bound, &stored, self);
            self.warn_if_failed("committing the file, its data is lost", committed);
        }
        // The mark on the file goes before the object is uncounted: the next user may come then.
        drop(stored);
        drop(bound);
    }

    fn warn_if_failed(&self, what: &str, result: Result) {
        if let Err(error) = result {
            pr_warn!("{}: {} failed: {:?}\n", self, what, error);
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let volume = BStr::from_bytes(&self.volume_key);
        write!(f, "{}/{}", volume, BStr::from_bytes(self.name()))
    }
}
