// SPDX-License-Identifier: GPL-2.0

//! One bound cache: how it comes into being, whom it serves, how it ends.
//!
//! A cache lives from `bind` until the last of its file descriptors is closed. What must end with
//! it, whatever else still holds the cache in memory, is the claim on fscache's name, and what the
//! [store](crate::store) lets go of when it is closed.

pub(crate) mod culling;
pub(crate) mod setup;
pub(crate) mod volume;
pub(crate) mod volumes;

use crate::cache::setup::Setup;
use crate::cache::volume::Volume;
use crate::cache::volumes::Volumes;
use crate::errno::Errno;
use crate::fscache::cache::CacheCookie;
use crate::fscache::cookie::Cookie;
use crate::kcompat::print::ratelimit;
use crate::kcompat::workqueue::OwnedQueue;
use crate::object::Object;
use crate::ondemand::engine::Engine;
use crate::stop_points::Place;
use crate::store::identity::Version;
use crate::store::Store;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;
use kernel::sync::Mutex;

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
    volumes: Volumes,
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
                volumes <- Volumes::new(),
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

    /// The volumes that are attached to it.
    pub(crate) fn volumes(&self) -> &Volumes {
        &self.volumes
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

    /// Takes the cache out of service. Called once, when the last file descriptor is closed. A lookup holds
    /// an access to its volume, so that no object is admitted any more when those are withdrawn.
    pub(crate) fn withdraw(&self) {
        let Some(fscache) = self.fscache.lock().clone() else {
            return;
        };
        pr_info!("File cache on {} unregistering\n", &*self.name);
        let Some(withdrawn) = fscache.withdraw() else {
            return;
        };
        self.engine.stops().stop_at(Place::WithdrawBegun);
        self.volumes.close(withdrawn.proof());
        self.withdraw_objects();
        withdrawn.wait_for_objects();
        self.volumes.free();
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
}
