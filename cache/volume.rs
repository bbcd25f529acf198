// SPDX-License-Identifier: GPL-2.0

//! What stands behind an fscache volume: a directory with 256 directories to spread the files over.
//!
//! On disk: `cache/I<volume key>/@<xx>/`, see `docs/protocol.md`. The 256 are opened, and made, when
//! the first object asks for each.
//!
//! Locking: `dirs` is held while a directory is opened or made: it may wait for the disk.

use crate::cache::culling;
use crate::cache::Cache;
use crate::cache::Live;
use crate::errno::Errno;
use crate::fscache::backend::Attachment;
use crate::fscache::volume::VolumeCookie;
use crate::stop_points::Place;
use crate::store::key;
use crate::store::space::Need;
use crate::store::xattr;
use crate::vfs::dir::PinnedDir;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::Mutex;

const FANOUT: usize = 256;

/// A volume in use.
#[pin_data(PinnedDrop)]
pub(crate) struct Volume {
    cache: Arc<Cache>,
    number: u64,
    key: KVec<u8>,
    /// `None` while the volume is being dropped.
    #[pin]
    dirs: Mutex<Option<Dirs>>,
}

/// A volume's directories, pinned as long as it is in use.
struct Dirs {
    dir: PinnedDir,
    /// By the low byte of the key hash; those that were asked for.
    fanout: KVec<Option<Arc<PinnedDir>>>,
}

impl Volume {
    /// Opens or makes the directories of `cookie`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if they are in use, `ENAMETOOLONG`, `ENOBUFS` if the disk is too full, what the
    /// file system says.
    pub(crate) fn acquire(
        cache: Arc<Cache>,
        cookie: &VolumeCookie,
        attachment: Attachment<Cache>,
    ) -> Result<Arc<Self>> {
        let live = cache.live()?;
        let dir = cache.cred().run(|| open_dir(&cache, &live, cookie))?;
        cache.daemon().stop_at(Place::VolumeOpened);
        let mut fanout = KVec::with_capacity(FANOUT, GFP_KERNEL)?;
        for _ in 0..FANOUT {
            fanout.push(None, GFP_KERNEL)?;
        }
        let mut volume_key = KVec::new();
        volume_key.extend_from_slice(cookie.key(), GFP_KERNEL)?;
        let number = cache.attach(cookie, attachment)?;
        let dirs = Some(Dirs { dir, fanout });
        let its_cache = cache.clone();
        let volume = Arc::pin_init(
            pin_init!(Volume {
                cache: its_cache,
                number,
                key: volume_key,
                dirs <- new_mutex!(dirs, "cachefiles_volume"),
            }),
            GFP_KERNEL,
        )
        .inspect_err(|_| {
            cookie.unpin();
            cache.forget_volume(number);
        })?;
        Ok(volume)
    }

    /// The cache.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The number that the cache knows it by.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its key, without a NUL.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The directory for files of this key hash. Called with the cache's credentials in force.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody else uses it, `ENOBUFS` if there is no space to make it, `EIO` if the
    /// volume is being dropped, what the file system says.
    pub(crate) fn fanout(&self, key_hash: u32) -> Result<Arc<PinnedDir>> {
        let [low, ..] = key_hash.to_le_bytes();
        let mut dirs = self.dirs.lock();
        let Dirs { dir, fanout } = (*dirs).as_mut().ok_or(EIO)?;
        let place = fanout.get_mut(usize::from(low)).ok_or(EIO)?;
        if let Some(dir) = place {
            return Ok(dir.clone());
        }
        let name = key::fanout_name(key_hash);
        let (dir, _) =
            PinnedDir::open_or_create(dir.path(), &name, || self.cache.has_space(Need::File))?;
        let dir = Arc::new(dir, GFP_KERNEL)?;
        *place = Some(dir.clone());
        Ok(dir)
    }

    /// Notes on disk that the volume was in use to the end.
    pub(crate) fn finish(volume: &Arc<Self>, cookie: &VolumeCookie) {
        let dirs = volume.dirs.lock();
        let Some(Dirs { dir, .. }) = &*dirs else {
            return;
        };
        let set = || xattr::set_volume(dir.path(), cookie.coherency());
        if let Err(error) = volume.cache.cred().run(set) {
            pr_warn!("setting a volume's attribute failed: {:?}\n", error);
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Volume {
    /// The directories are free before the withdrawal, and with it the next user, is told.
    fn drop(self: Pin<&mut Self>) {
        drop(self.dirs.lock().take());
        self.cache.forget_volume(self.number);
    }
}

/// Opens or makes the volume's directory; one that belongs to an older volume of the same name, or
/// to nothing (its maker died in the middle), is buried and made anew.
fn open_dir(cache: &Cache, live: &Live, cookie: &VolumeCookie) -> Result<PinnedDir> {
    let name = key::volume_name(cookie.key())?;
    let open = || {
        PinnedDir::open_or_create(live.store().path(), name.as_bytes(), || {
            cache.has_space(Need::File)
        })
    };
    let (mut dir, mut created) = open()?;
    if !created && !xattr::check_volume(dir.path(), cookie.coherency())? {
        culling::bury(live, live.store(), dir.path().dentry())?;
        drop(dir);
        (dir, created) = open()?;
        if !created {
            return Err(Errno::ESTALE.into());
        }
    }
    if created {
        xattr::set_volume(dir.path(), cookie.coherency())?;
    }
    Ok(dir)
}
