// SPDX-License-Identifier: GPL-2.0

//! What stands behind an fscache cookie: a file of the store, and an entry in the request table.
//!
//! An object has two lifetimes. Its fscache half ([`Bound`], the cookie, the volume and the file)
//! ends with `withdraw_cookie`. Its on-demand half lives on as long as an anonymous fd names it, so
//! that a daemon that is slow to close an fd does not hold up a remount.
//!
//! Locking: `store` is held while the file is checked, replaced or committed ([`validate`]): it may wait
//! for the disk, never for a daemon. `current` is a spinlock inside it, for those who only need the
//! file.

mod validate;
mod writeback;

use crate::cache::volume::Volume;
use crate::cache::Cache;
use crate::errno::Errno;
use crate::fscache::cache::CountedObject;
use crate::fscache::cookie::Cookie;
use crate::kcompat::delayed_work::DelayedWork;
use crate::kcompat::fmt;
use crate::kcompat::fs::File;
use crate::kcompat::poll::WaitQueue;
use crate::kcompat::print::ratelimit;
use crate::kcompat::print::Once;
use crate::kcompat::types::ARef;
use crate::ondemand::message::Message;
use crate::stop_points::Place;
use crate::store::contents::Contents;
use crate::store::identity::Token;
use crate::store::key;
use crate::store::key::FileName;
use crate::vfs::store_file::StoreFile;
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
use kernel::workqueue::new_work;
use kernel::workqueue::Work;

/// The work item of the early commit; 0 is the reopening.
const COMMIT: u64 = 1;
/// The work item that writes filled data to the disk.
const SETTLE: u64 = 2;

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
    /// What it holds.
    pub(crate) contents: Arc<Contents>,
    /// It has no name yet: it is committed once data was stored, or when the object is withdrawn.
    pub(crate) unnamed: bool,
    /// Which version of the object it holds; not told before the object was opened.
    pub(crate) token: Token,
}

/// An object's part that is worked on with the disk.
pub(crate) struct Store {
    /// `None` before a file could be found or made, and after the withdrawal.
    ///
    /// Before `bound`: the mark on the file goes before the object is uncounted, since the next
    /// user may come then.
    pub(crate) stored: Option<Stored>,
    pub(crate) bound: Option<Bound>,
    /// Bytes, as the daemon told them when the object was opened for the first time.
    pub(crate) size: Option<u64>,
    /// Early commits that have failed, in a row.
    failed_commits: u32,
}

/// What readers and writers of the file need.
#[derive(Clone)]
pub(crate) struct Current {
    /// The file, to read it and to ask what was lost.
    pub(crate) file: ARef<File>,
    /// The file, to write to it.
    pub(crate) writer: ARef<File>,
    /// What it holds.
    pub(crate) contents: Arc<Contents>,
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
    /// `None` if the name of its file would be too long.
    name: Option<FileName>,
    key_hash: u32,
    /// Readers that wait for the first opening.
    #[pin]
    opened: WaitQueue,
    #[pin]
    pub(crate) reopen: Work<Object>,
    #[pin]
    commit: DelayedWork<Object, COMMIT>,
    #[pin]
    store: Mutex<Store>,
    #[pin]
    current: SpinLock<Option<Current>>,
    /// fscache was told that data was stored.
    has_data: AtomicBool,
    #[pin]
    settle: DelayedWork<Object, SETTLE>,
    /// The work is queued, or about to be.
    unsettled: AtomicBool,
}

impl Object {
    /// Takes in the object of a cookie, with its file if one can be found or made, and sends its first OPEN.
    ///
    /// Without a file it is tried again whenever one is needed. EROFS must not see a lookup fail: all that
    /// it reads under that cookie would fail at once, also when there could be a file again, and the
    /// compressed reads among it would use freed memory (D47).
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a cookie of a netfs that does not let the cache tell the size or has auxiliary
    /// data; `ENOMEM`.
    pub(crate) fn lookup(volume: &Arc<Volume>, cookie: &Cookie) -> Result<Arc<Self>> {
        let cache = volume.cache();
        if !cookie.wants_cache_size() || cookie.has_aux() {
            static TOLD: Once = Once::new();
            if TOLD.first() {
                pr_warn!("only netfs's that let the cache tell the size, and have no auxiliary data, are served (EROFS)\n");
            }
            return Err(Errno::EOPNOTSUPP.into());
        }
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
        let store = Store {
            stored: None,
            bound: Some(bound),
            size: None,
            failed_commits: 0,
        };
        let object = Arc::pin_init(
            pin_init!(Self {
                cache: cache.clone(),
                number: AtomicU32::new(0),
                volume_key,
                cookie_key,
                name: key::cook(cookie.key()).ok(),
                key_hash: cookie.key_hash(),
                opened <- WaitQueue::new(),
                reopen <- new_work!("cachefiles_reopen"),
                commit <- DelayedWork::new(cache.daemon().commit_queue()),
                store <- new_mutex!(store, "cachefiles_store"),
                current <- new_spinlock!(None, "cachefiles_current"),
                has_data: AtomicBool::new(false),
                settle <- DelayedWork::new(cache.daemon().commit_queue()),
                unsettled: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )?;
        let found = object.find(&mut object.store.lock());
        if let Err(error) = found {
            if ratelimit() {
                pr_err!("{}: no file: {:?}\n", &*object, error);
            }
        }
        cache.daemon().stop_at(Place::LookupFound);
        cache.engine().admit(&object)?;
        cache.daemon().stop_at(Place::LookupAdmitted);
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
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG` if it would be too long.
    pub(crate) fn file_name(&self) -> Result<&[u8]> {
        let name = self.name.as_ref().ok_or(Errno::ENAMETOOLONG)?;
        Ok(name.as_bytes())
    }

    /// What it is called where somebody reads it: the name of its file, or its key if there is none.
    pub(crate) fn name(&self) -> &[u8] {
        self.file_name().unwrap_or(&self.cookie_key)
    }

    /// The volume's key.
    pub(crate) fn volume_key(&self) -> &[u8] {
        &self.volume_key
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
    /// `ENOBUFS` if there is no file: none was found yet, or the object is withdrawn.
    pub(crate) fn current(&self) -> Result<Current> {
        self.current.lock().clone().ok_or(Errno::ENOBUFS.into())
    }

    /// The same, with another try to find or make the file if there is none.
    ///
    /// # Errors
    ///
    /// As [`Object::find`].
    pub(crate) fn current_or_found(&self) -> Result<Current> {
        self.current().or_else(|_| {
            self.find(&mut self.store.lock())?;
            self.current()
        })
    }

    /// Has fscache withdraw the cookie, as soon as no access to it is under way.
    pub(crate) fn withdraw(&self) {
        if let Some(bound) = &self.store.lock().bound {
            bound.cookie.withdraw();
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(BStr::from_bytes(&self.volume_key), f)?;
        f.write_str("/")?;
        fmt::Display::fmt(BStr::from_bytes(self.name()), f)
    }
}
