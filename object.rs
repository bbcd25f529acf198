// SPDX-License-Identifier: GPL-2.0

//! What stands behind an fscache cookie: a file of the store, and an entry in the request table.
//!
//! An object has two lifetimes. Its fscache half ([`Bound`], the cookie, the volume and the file)
//! ends with `withdraw_cookie`. Its on-demand half lives on as long as an anonymous fd names it, so
//! that a daemon that is slow to close an fd does not hold up a remount.
//!
//! Locking: `backing` is held while the file is checked, replaced or committed ([`validate`], [`commit`]): it may wait
//! for the disk, never for a daemon. `current` is a spinlock inside it, for those who only need the
//! file.

mod commit;
mod reopen;
mod validate;
mod writeback;

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
use crate::kcompat::workqueue::OwnedQueue;
use crate::ondemand::client::Client;
use crate::ondemand::engine::Engine;
use crate::stop_points::Place;
use crate::store::contents::Contents;
use crate::store::key;
use crate::store::key::FileName;
use crate::store::namei::Stored;
use crate::store::volume::VolumeDir;
use crate::store::Store;
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
struct Bound {
    volume: Arc<VolumeDir>,
    /// Given back before the object is uncounted.
    cookie: ARef<Cookie>,
    _counted: CountedObject,
}

/// An object's part that is worked on with the disk.
struct Backing {
    /// `None` before a file could be found or made, and after the withdrawal.
    ///
    /// Before `bound`: the mark on the file goes before the object is uncounted, since the next
    /// user may come then.
    stored: Option<Stored>,
    bound: Option<Bound>,
    /// Bytes, as the daemon told them when the object was opened for the first time.
    size: Option<u64>,
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

/// What an object is called.
struct Keys {
    volume: KVec<u8>,
    cookie: KVec<u8>,
    /// The name of its file; `None` if that would be too long.
    name: Option<FileName>,
    /// The hash that chooses its directory.
    hash: u32,
}

/// An object.
#[pin_data]
pub(crate) struct Object {
    engine: Arc<Engine<Object>>,
    store: Arc<Store>,
    /// Its place in the request table; set before anybody else sees the object.
    number: AtomicU32,
    keys: Keys,
    /// Readers that wait for the first opening.
    #[pin]
    opened: WaitQueue,
    #[pin]
    reopen: Work<Object>,
    #[pin]
    commit: DelayedWork<Object, COMMIT>,
    #[pin]
    backing: Mutex<Backing>,
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
    pub(crate) fn lookup(
        engine: &Arc<Engine<Object>>,
        store: &Arc<Store>,
        volume: &Arc<VolumeDir>,
        cookie: &Cookie,
        counted: CountedObject,
    ) -> Result<Arc<Self>> {
        if !cookie.wants_cache_size() || cookie.has_aux() {
            static TOLD: Once = Once::new();
            if TOLD.first() {
                pr_warn!("only netfs's that let the cache tell the size, and have no auxiliary data, are served (EROFS)\n");
            }
            return Err(Errno::EOPNOTSUPP.into());
        }
        let mut keys = Keys {
            volume: KVec::new(),
            cookie: KVec::new(),
            name: key::cook(cookie.key()).ok(),
            hash: cookie.key_hash(),
        };
        keys.cookie.extend_from_slice(cookie.key(), GFP_KERNEL)?;
        keys.volume.extend_from_slice(volume.key(), GFP_KERNEL)?;

        let bound = Bound {
            volume: volume.clone(),
            cookie: cookie.into(),
            _counted: counted,
        };
        let backing = Backing {
            stored: None,
            bound: Some(bound),
            size: None,
            failed_commits: 0,
        };
        let object = Arc::pin_init(
            pin_init!(Self {
                engine: engine.clone(),
                store: store.clone(),
                number: AtomicU32::new(0),
                keys,
                opened <- WaitQueue::new(),
                reopen <- new_work!("cachefiles_reopen"),
                commit <- DelayedWork::new(store.queue()),
                backing <- new_mutex!(backing, "cachefiles_backing"),
                current <- new_spinlock!(None, "cachefiles_current"),
                has_data: AtomicBool::new(false),
                settle <- DelayedWork::new(store.queue()),
                unsettled: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )?;
        let found = object.find(&mut object.backing.lock());
        if let Err(error) = found {
            if ratelimit() {
                pr_err!("{}: no file: {:?}\n", &*object, error);
            }
        }
        store.stops().stop_at(Place::LookupFound);
        engine.admit(&object)?;
        store.stops().stop_at(Place::LookupAdmitted);
        engine.send_open(&object);
        Ok(object)
    }

    /// The request table that it is in.
    pub(crate) fn engine(&self) -> &Arc<Engine<Object>> {
        &self.engine
    }

    /// The store that its file is in.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The name of its file.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG` if it would be too long.
    fn file_name(&self) -> Result<&[u8]> {
        let name = self.keys.name.as_ref().ok_or(Errno::ENAMETOOLONG)?;
        Ok(name.as_bytes())
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
            self.find(&mut self.backing.lock())?;
            self.current()
        })
    }

    /// Has fscache withdraw the cookie, as soon as no access to it is under way.
    pub(crate) fn withdraw(&self) {
        if let Some(bound) = &self.backing.lock().bound {
            bound.cookie.withdraw();
        }
    }
}

impl Client for Object {
    fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    fn set_number(&self, number: u32) {
        self.number.store(number, Ordering::Relaxed);
    }

    fn opened(&self) -> &WaitQueue {
        &self.opened
    }

    fn volume_key(&self) -> &[u8] {
        &self.keys.volume
    }

    fn cookie_key(&self) -> &[u8] {
        &self.keys.cookie
    }

    /// The name of its file, or its key if there is none.
    fn name(&self) -> &[u8] {
        self.file_name().unwrap_or(&self.keys.cookie)
    }

    fn queue_reopening(self: Arc<Self>, queue: &'static OwnedQueue) {
        let _ = queue.enqueue::<Arc<Object>, 0>(self);
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(BStr::from_bytes(&self.keys.volume), f)?;
        f.write_str("/")?;
        fmt::Display::fmt(BStr::from_bytes(self.name()), f)
    }
}
