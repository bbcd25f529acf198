// SPDX-License-Identifier: GPL-2.0

//! What stands behind an fscache cookie: a file of the store, and an entry in the request table.
//!
//! An object has two lifetimes. Its fscache half ([`Bound`], the cookie, the volume and the file)
//! ends with `withdraw_cookie`. Its on-demand half lives on as long as an anonymous fd names it, so
//! that a daemon that is slow to close an fd does not hold up a remount.
//!
//! Locking: `store` is held while the file is checked, replaced or committed ([`store`]): it may wait
//! for the disk, never for a daemon. `current` is a spinlock inside it, for those who only need the
//! file.

mod settle;
mod store;

use crate::cache::Cache;
use crate::errno::Errno;
use crate::fscache::cache::CountedObject;
use crate::fscache::cookie::Cookie;
use crate::kcompat::delayed_work::DelayedWork;
use crate::kcompat::fs::File;
use crate::kcompat::poll::WaitQueue;
use crate::kcompat::print::Once;
use crate::key;
use crate::key::FileName;
use crate::namei;
use crate::ondemand::message::Message;
use crate::stop_points::Place;
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
    /// It has no name yet: it is committed once data was stored, or when the object is withdrawn.
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
    commit: Work<Object, COMMIT>,
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
    /// Finds or makes the file of a cookie, and sends the object's first OPEN.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG` for a key whose file name would be too long, `EOPNOTSUPP` for a cookie of a
    /// netfs that does not let the cache tell the size or has auxiliary data, `EBUSY` if the file is in use, `ENOBUFS`
    /// if the disk is too full, `EIO` if the cache is dead, and what the file system says.
    pub(crate) fn lookup(volume: &Arc<Volume>, cookie: &Cookie) -> Result<Arc<Self>> {
        let cache = volume.cache();
        if !cookie.wants_cache_size() || cookie.has_aux() {
            static TOLD: Once = Once::new();
            if TOLD.first() {
                pr_warn!("only netfs's that let the cache tell the size, and have no auxiliary data, are served (EROFS)\n");
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
        let stored = cache
            .cred()
            .run(|| namei::look_up(&live, volume, cookie.key_hash(), name.as_bytes()))?;
        cache.daemon().stop_at(Place::LookupFound);
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
                commit <- new_work!("cachefiles_commit"),
                store <- new_mutex!(store, "cachefiles_store"),
                current <- new_spinlock!(Some(current), "cachefiles_current"),
                has_data: AtomicBool::new(false),
                settle <- DelayedWork::new(),
                unsettled: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )?;
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
    pub(crate) fn name(&self) -> &[u8] {
        self.name.as_bytes()
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
    /// `ENOBUFS` if the object is withdrawn.
    pub(crate) fn current(&self) -> Result<Current> {
        self.current.lock().clone().ok_or(Errno::ENOBUFS.into())
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
        let volume = BStr::from_bytes(&self.volume_key);
        write!(f, "{}/{}", volume, BStr::from_bytes(self.name()))
    }
}
