// SPDX-License-Identifier: GPL-2.0

//! One bound cache: how it comes into being, how full it may become, how it ends.
//!
//! A cache lives from `bind` until the last of its file descriptors is closed. What must end with
//! it, whatever else still holds the cache in memory, is in [`Live`]: the claim on fscache's name,
//! and the pins on the store's mount and directories.

pub(crate) mod culling;
pub(crate) mod setup;
pub(crate) mod volume;

use crate::cache::setup::Setup;
use crate::cache::volume::Volume;
use crate::daemon::command::Fill;
use crate::daemon::Daemon;
use crate::errno::Errno;
use crate::fscache::backend::Attachment;
use crate::fscache::cache::CacheCookie;
use crate::fscache::stats;
use crate::fscache::volume::VolumeCookie;
use crate::kcompat::print::ratelimit;
use crate::ondemand::engine::Engine;
use crate::stop_points::Place;
use crate::store::identity::Version;
use crate::store::probe;
use crate::store::space::Account;
use crate::store::space::Need;
use crate::vfs::cred::Credentials;
use crate::vfs::dir::PinnedDir;
use crate::vfs::path::Path;
use crate::vfs::path::Space;
use crate::vfs::security;
use crate::vfs::superblock::FsKind;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;
use kernel::new_condvar;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::str::BStr;
use kernel::str::CString;
use kernel::sync::Arc;
use kernel::sync::CondVar;
use kernel::sync::Mutex;

/// Reads and writes of the store are in whole pages.
pub(crate) const PAGE: u64 = kernel::page::PAGE_SIZE as u64;

/// What ends with the cache.
pub(crate) struct Live {
    fscache: CacheCookie<Cache>,
    root: Path,
    store: PinnedDir,
    graveyard: PinnedDir,
    /// Graves that were given out, for their names.
    graves: AtomicU32,
}

impl Live {
    /// The cache, to fscache.
    pub(crate) fn fscache(&self) -> &CacheCookie<Cache> {
        &self.fscache
    }

    /// The directory `cache`, which holds the volumes.
    pub(crate) fn store(&self) -> &PinnedDir {
        &self.store
    }

    /// The directory `graveyard`, where directories go that are to be deleted by the daemon.
    pub(crate) fn graveyard(&self) -> &PinnedDir {
        &self.graveyard
    }

    /// A number for the next grave.
    pub(crate) fn next_grave(&self) -> u32 {
        self.graves.fetch_add(1, Ordering::Relaxed)
    }
}

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
    daemon: Arc<Daemon>,
    cred: Credentials,
    name: CString,
    space: Account,
    /// The largest file that the file system can hold, in bytes.
    max_file_size: u64,
    /// Bytes of the windows that READs ask for; 0: for what is missing alone.
    fetch: u64,
    /// How the daemon's data is stored.
    fill: Fill,
    /// A `copen` may tell the version of an object.
    identity: bool,
    /// The store's file system.
    kind: FsKind,
    #[pin]
    live: Mutex<Option<Arc<Live>>>,
    #[pin]
    volumes: Mutex<Volumes>,
    #[pin]
    volume_freed: CondVar,
}

impl Cache {
    /// Checks the directory that was set up, claims the cache's name and puts it into service.
    ///
    /// # Errors
    ///
    /// `EINVAL` without a directory, and those of [`probe::check_store`]; `EBUSY` if the directory
    /// or the name is in use; a line in the log says which.
    pub(crate) fn bind(daemon: &Arc<Daemon>, setup: &Setup) -> Result<Arc<Self>> {
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
        let cred = Credentials::of_kernel(setup.security_context())
            .inspect_err(|error| pr_err!("the security context cannot be used: {:?}\n", error))?;
        let root = cred
            .run(|| Path::lookup_dir(dir.as_c_str()))
            .inspect_err(|error| pr_err!("cache directory '{}': {:?}\n", dir.as_c_str(), error))?;
        probe::check_path(&root)?;
        if setup.fill == Fill::Buffered {
            probe::check_maps_after_writing(&root)?;
        }
        let cred = cred.creating_files_as(&root)?;
        let (store, graveyard, space) = cred.run(|| Self::open_store(&root, &cred))?;
        let space = Account::new(&setup.limits, space);
        let max_file_size = root.max_file_size();
        let kind = root.kind();
        let live = Arc::new(
            Live {
                fscache,
                root,
                store,
                graveyard,
                graves: AtomicU32::new(0),
            },
            GFP_KERNEL,
        )?;
        let bound_live = live.clone();
        let cache = Arc::pin_init(
            pin_init!(Self {
                daemon: daemon.clone(),
                cred,
                name,
                space,
                max_file_size,
                fetch: u64::from(setup.fetch),
                fill: setup.fill,
                identity: setup.identity,
                kind,
                live <- new_mutex!(Some(bound_live), "cachefiles_live"),
                volumes <- new_mutex!(Volumes::default(), "cachefiles_volumes"),
                volume_freed <- new_condvar!("cachefiles_volume_freed"),
            }),
            GFP_KERNEL,
        )?;
        live.fscache.add(cache.clone())?;
        // The limits may be reached already. If the file system does not tell now, the next write
        // asks again.
        let _ = cache.look_at_space();
        pr_info!("File cache on {} registered\n", &*cache.name);
        Ok(cache)
    }

    /// Opens the two directories of a store, and checks that it can be one.
    fn open_store(root: &Path, cred: &Credentials) -> Result<(PinnedDir, PinnedDir, Space)> {
        security::may_fill(root)?;
        let open = |name: &[u8]| {
            PinnedDir::open_or_create(root, name, || Ok(()))
                .map(|(dir, _)| dir)
                .inspect_err(|error| {
                    pr_err!("directory '{}': {:?}\n", BStr::from_bytes(name), error)
                })
        };
        let store = open(b"cache")?;
        // Keys that differ in their case alone would have one file. A directory that ignores case by itself was refused.
        if store.is_also(root, b"CACHE")? {
            pr_err!("the cache's file system ignores the case of names\n");
            return Err(Errno::EOPNOTSUPP.into());
        }
        let graveyard = open(b"graveyard")?;
        probe::check_store(&store, cred)?;
        Ok((store, graveyard, root.space()?))
    }

    /// The daemon that serves the cache.
    pub(crate) fn daemon(&self) -> &Arc<Daemon> {
        &self.daemon
    }

    /// The request table.
    pub(crate) fn engine(&self) -> &Engine {
        self.daemon.engine()
    }

    /// The credentials that the store is accessed with.
    pub(crate) fn cred(&self) -> &Credentials {
        &self.cred
    }

    /// Bytes that a file of the store can hold at most.
    pub(crate) fn max_file_size(&self) -> u64 {
        self.max_file_size
    }

    /// Bytes of the windows that READs ask for, a power of two; 0: READs ask for what is missing alone.
    pub(crate) fn fetch(&self) -> u64 {
        self.fetch
    }

    /// Whether small fills go through the page cache.
    pub(crate) fn fills_in_memory(&self) -> bool {
        self.fill == Fill::Buffered
    }

    /// Whether an OPEN may be answered so: with a token only after `identity on`.
    pub(crate) fn can_be_told(&self, version: &Version) -> bool {
        self.identity || !version.token.is_told()
    }

    /// Whether `identity on` was said before `bind`.
    pub(crate) fn knows_tokens(&self) -> bool {
        self.identity
    }

    /// What the store's file system is.
    pub(crate) fn kind(&self) -> FsKind {
        self.kind
    }

    /// What ends with the cache.
    ///
    /// # Errors
    ///
    /// `EIO` if the cache was withdrawn.
    pub(crate) fn live(&self) -> Result<Arc<Live>> {
        self.live.lock().clone().ok_or(EIO)
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
        let opened = self.engine().copen(msg_id, size)?;
        let (Some(opened), Ok(version)) = (opened, answer) else {
            return Ok(());
        };
        self.daemon.stop_at(Place::CopenAnswered);
        let outcome = opened.handle.validate(&version);
        self.daemon.stop_at(Place::CopenValidated);
        if let Err(error) = outcome {
            if ratelimit() {
                pr_warn!("{}: opening failed: {:?}\n", opened.handle, error);
            }
        }
        self.engine()
            .copen_finish(&opened, outcome.map_err(Errno::from));
        outcome
    }

    /// Checks that there is space, according to the limits, and asks for culling if there is little.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` below the stop marks; what `statfs` says; `EIO` for a withdrawn cache.
    pub(crate) fn has_space(&self, need: Need) -> Result {
        let space = self.live()?.root.space()?;
        let level = self.space.level(space, need);
        self.daemon.note_level(level);
        if level.may_store() {
            return Ok(());
        }
        match need {
            Need::Nothing => return Ok(()),
            Need::File => stats::count_no_create_space(),
            Need::Bytes(_) => stats::count_no_write_space(),
        }
        Err(Errno::ENOBUFS.into())
    }

    /// Looks whether the cache wants culling still, or does now.
    ///
    /// # Errors
    ///
    /// What `statfs` says; `EIO` for a withdrawn cache.
    pub(crate) fn look_at_space(&self) -> Result {
        self.cred.run(|| self.has_space(Need::Nothing))
    }

    /// The space that writes are accounted for in.
    pub(crate) fn space(&self) -> &Account {
        &self.space
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
        let Some(live) = self.live.lock().clone() else {
            return;
        };
        pr_info!("File cache on {} unregistering\n", &*self.name);
        let withdrawn = live.fscache.withdraw();
        self.daemon.stop_at(Place::WithdrawBegun);
        self.volumes.lock().closed = true;
        self.withdraw_volume_accesses();
        self.withdraw_objects();
        withdrawn.wait_for_objects();
        self.free_volumes();
        if let Err(error) = self.sync(&live) {
            pr_err!("syncing the cache's file system failed: {:?}\n", error);
        }
        drop(withdrawn.take_private());
        drop(self.live.lock().take());
    }

    fn sync(&self, live: &Live) -> Result {
        self.cred.run(|| live.root.sync())
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
        while let Some((number, object)) = self.engine().next_object(from) {
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
                    Volume::finish(&volume, &cookie);
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
