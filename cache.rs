// SPDX-License-Identifier: GPL-2.0

//! One bound cache: how it comes into being, whom it serves, how it ends.
//!
//! A cache lives from `bind` until the last of its file descriptors is closed. What must end with
//! it, whatever else still holds the cache in memory, is the claim on fscache's name, and what the
//! [store](crate::store) lets go of when it is closed.

pub(crate) mod culling;
pub(crate) mod setup;
pub(crate) mod volume;

use crate::cache::setup::Setup;
use crate::cache::volume::Volume;
use crate::errno::Errno;
use crate::fscache::backend::Attachment;
use crate::fscache::cache::CacheCookie;
use crate::fscache::cookie::Cookie;
use crate::fscache::volume::VolumeCookie;
use crate::kcompat::print::ratelimit;
use crate::kcompat::workqueue::OwnedQueue;
use crate::object::Object;
use crate::ondemand::engine::Engine;
use crate::stop_points::Place;
use crate::store::identity::Version;
use crate::store::Store;
use kernel::new_condvar;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::str::CString;
use kernel::sync::Arc;
use kernel::sync::CondVar;
use kernel::sync::Mutex;

/// The attached volumes, by their number; closed once the cache is withdrawn.
#[derive(Default)]
pub(crate) struct Volumes {
    closed: bool,
    next: u64,
    attached: RBTree<u64, Attached>,
}

// Nothing in it is pinned: the guard of a lock gives a reference to change only such data, since 6.19.
impl Unpin for Volumes {}

/// A volume that is in use.
struct Attached {
    /// The right to detach it; taken by whoever does.
    attachment: Option<Attachment<Cache>>,
    /// The withdrawal has waited for its accesses, or is about to.
    withdrawn: bool,
}

/// A cache that is, or was, bound.
#[pin_data]
pub(crate) struct Cache {
    engine: Arc<Engine<Object>>,
    store: Arc<Store>,
    name: CString,
    /// The claim on the name, until the cache is withdrawn.
    #[pin]
    fscache: Mutex<Option<Arc<CacheCookie<Cache>>>>,
    #[pin]
    volumes: Mutex<Volumes>,
    #[pin]
    volume_freed: CondVar,
}

impl Cache {
    /// Checks the directory that was set up, claims the cache's name and puts it into service. `queue` is where work
    /// waits for the disk.
    ///
    /// # Errors
    ///
    /// `EINVAL` without a directory, and those of [`Store::open`]; `EBUSY` if the name is in use; a line in the log
    /// says which.
    pub(crate) fn bind(
        engine: &Arc<Engine<Object>>,
        queue: &'static OwnedQueue,
        setup: &Setup,
    ) -> Result<Arc<Self>> {
        let Some(dir) = setup.dir() else {
            pr_err!("no cache directory was set\n");
            return Err(EINVAL);
        };
        let name = match setup.tag() {
            Some(tag) => tag.as_c_str().to_cstring()?,
            None => kernel::c_str!("CacheFiles").to_cstring()?,
        };
        let fscache = CacheCookie::acquire(&name)
            .inspect_err(|_| pr_err!("a cache with the tag '{}' exists\n", &*name))?;
        let store = Store::open(
            dir.as_c_str(),
            setup.security_context(),
            &setup.options,
            engine.pollers(),
            queue,
            engine.stops(),
        )?;
        let fscache = Arc::new(fscache, GFP_KERNEL)?;
        let claim = fscache.clone();
        let cache = Arc::pin_init(
            pin_init!(Self {
                engine: engine.clone(),
                store,
                name,
                fscache <- new_mutex!(Some(claim), "cachefiles_fscache"),
                volumes <- new_mutex!(Volumes::default(), "cachefiles_volumes"),
                volume_freed <- new_condvar!("cachefiles_volume_freed"),
            }),
            GFP_KERNEL,
        )?;
        fscache.add(cache.clone())?;
        // The limits may be reached already. If the file system does not tell now, the next write
        // asks again.
        let _ = cache.store.look_at_space();
        pr_info!("File cache on {} registered\n", &*cache.name);
        Ok(cache)
    }

    /// The directory that it is bound to.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Whether an OPEN may be answered so: with a token only after `identity on`.
    pub(crate) fn can_be_told(&self, version: &Version) -> bool {
        self.knows_tokens() || !version.token.is_told()
    }

    /// Whether `identity on` was said before `bind`.
    pub(crate) fn knows_tokens(&self) -> bool {
        self.store.options().identity
    }

    /// Takes in the object of a cookie of `volume`.
    ///
    /// # Errors
    ///
    /// `EIO` if the cache was withdrawn; those of [`Object::lookup`].
    pub(crate) fn lookup(&self, volume: &Volume, cookie: &Cookie) -> Result<Arc<Object>> {
        let fscache = self.fscache.lock().clone().ok_or(EIO)?;
        let counted = fscache.count_object();
        Object::lookup(&self.engine, &self.store, volume.dir()?, cookie, counted)
    }

    /// Answers an OPEN: with a size, which the object's file is checked against here, or with the
    /// daemon's error. The request has ended when this returns without EINVAL for its number.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a number that is no OPEN which the daemon holds, and for a size that cannot
    /// be; `EBADFD` if the fd is closed already; what the store says.
    pub(crate) fn copen(&self, msg_id: u32, answer: Result<Version, Errno>) -> Result {
        let size = answer.map(|version| version.size);
        let opened = self.engine.copen(msg_id, size)?;
        let (Some(opened), Ok(version)) = (opened, answer) else {
            return Ok(());
        };
        self.engine.stops().stop_at(Place::CopenAnswered);
        let outcome = opened.handle.validate(&version);
        self.engine.stops().stop_at(Place::CopenValidated);
        if let Err(error) = outcome {
            if ratelimit() {
                pr_warn!("{}: opening failed: {:?}\n", opened.handle, error);
            }
        }
        self.engine
            .copen_finish(&opened, outcome.map_err(Errno::from));
        outcome
    }

    /// Remembers and pins a volume that is being attached, and tells its number. It is remembered
    /// until [`Cache::forget_volume`].
    ///
    /// # Errors
    ///
    /// `EIO` if the cache is being withdrawn, `ENOMEM`.
    pub(crate) fn attach(
        &self,
        cookie: &VolumeCookie,
        attachment: Attachment<Self>,
    ) -> Result<u64> {
        let mut volumes = self.volumes.lock();
        if volumes.closed {
            return Err(EIO);
        }
        let number = volumes.next;
        let attached = Attached {
            attachment: Some(attachment),
            withdrawn: false,
        };
        volumes
            .attached
            .try_create_and_insert(number, attached, GFP_KERNEL)?;
        volumes.next += 1;
        cookie.pin();
        Ok(number)
    }

    /// Hands out the right to detach a volume; `None` if the withdrawal was faster.
    pub(crate) fn detach(&self, number: u64) -> Option<Attachment<Self>> {
        let mut volumes = self.volumes.lock();
        volumes.attached.get_mut(&number)?.attachment.take()
    }

    /// Forgets a volume whose directories are free again; tells the withdrawal.
    pub(crate) fn forget_volume(&self, number: u64) {
        self.volumes.lock().attached.remove(&number);
        self.volume_freed.notify_all();
    }

    /// Takes the cache out of service. Called once, when the last file descriptor is closed. A lookup holds
    /// an access to its volume, so that no object is admitted any more when those are withdrawn.
    pub(crate) fn withdraw(&self) {
        let Some(fscache) = self.fscache.lock().clone() else {
            return;
        };
        pr_info!("File cache on {} unregistering\n", &*self.name);
        let withdrawn = fscache.withdraw();
        self.engine.stops().stop_at(Place::WithdrawBegun);
        self.volumes.lock().closed = true;
        self.withdraw_volume_accesses();
        self.withdraw_objects();
        withdrawn.wait_for_objects();
        self.free_volumes();
        if let Err(error) = self.sync() {
            pr_err!("syncing the cache's file system failed: {:?}\n", error);
        }
        drop(withdrawn.take_private());
        let claim = self.fscache.lock().take();
        // The name is free first, then the directories.
        drop((claim, fscache));
        self.store.close();
    }

    fn sync(&self) -> Result {
        let dirs = self.store.dirs()?;
        self.store.cred().run(|| dirs.sync())
    }

    /// Waits, volume by volume, until no access to them is under way.
    ///
    /// A reference to a volume is never dropped with the lock held: it may be the last one, and
    /// fscache frees the volume then.
    fn withdraw_volume_accesses(&self) {
        loop {
            let next = {
                let mut volumes = self.volumes.lock();
                let Some(attached) = volumes.attached.values_mut().find(|it| !it.withdrawn) else {
                    return;
                };
                attached.withdrawn = true;
                let attachment = attached.attachment.as_ref();
                attachment.and_then(|attachment| attachment.volume().upgrade())
            };
            if let Some(volume) = next {
                volume.withdraw();
            }
        }
    }

    fn withdraw_objects(&self) {
        let mut from = 0;
        while let Some((number, object)) = self.engine.next_object(from) {
            object.withdraw();
            match number.checked_add(1) {
                Some(next) => from = next,
                None => return,
            }
        }
    }

    /// Frees what is left of the volumes, or waits until fscache has.
    fn free_volumes(&self) {
        let mut volumes = self.volumes.lock();
        loop {
            let taken = volumes.attached.values_mut().find_map(|attached| {
                let cookie = attached.attachment.as_ref()?.volume().upgrade()?;
                Some((cookie, attached.attachment.take()?))
            });
            if let Some((cookie, attachment)) = taken {
                drop(volumes);
                if let Some(volume) = attachment.detach(&cookie) {
                    volume.finish(&cookie);
                }
                drop(cookie);
                volumes = self.volumes.lock();
            } else if volumes.attached.iter().next().is_none() {
                return;
            } else {
                // fscache is freeing those that are left, and `forget_volume` tells us.
                self.volume_freed.wait(&mut volumes);
            }
        }
    }
}
