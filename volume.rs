// SPDX-License-Identifier: GPL-2.0

//! What stands behind an fscache volume: a directory with 256 directories to spread the files over.
//!
//! On disk: `cache/I<volume key>/@<xx>/`, see `docs/protocol.md`.

use crate::cache::Cache;
use crate::cache::Live;
use crate::cache::Need;
use crate::errno::Errno;
use crate::fscache::backend::Attachment;
use crate::fscache::volume::VolumeCookie;
use crate::key;
use crate::vfs::dir::PinnedDir;
use crate::xattr;
use kernel::prelude::*;
use kernel::sync::Arc;

const FANOUT: usize = 256;

/// A volume in use.
pub(crate) struct Volume {
    cache: Arc<Cache>,
    number: u64,
    key: KVec<u8>,
    /// `None` while the volume is being dropped.
    dirs: Option<Dirs>,
}

/// A volume's directories, pinned as long as it is in use.
struct Dirs {
    dir: PinnedDir,
    fanout: KVec<PinnedDir>,
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
        let scope = cache.cred().scope();
        let dir = open_dir(&cache, &live, cookie)?;
        let mut fanout = KVec::with_capacity(FANOUT, GFP_KERNEL)?;
        for hash in 0..FANOUT as u32 {
            let name = key::fanout_name(hash);
            let (dir, _) =
                PinnedDir::open_or_create(dir.path(), &name, || cache.has_space(Need::File))?;
            fanout.push(dir, GFP_KERNEL)?;
        }
        drop(scope);
        let mut volume_key = KVec::new();
        volume_key.extend_from_slice(cookie.key(), GFP_KERNEL)?;
        let number = cache.attach(cookie, attachment)?;
        let volume = Arc::new(
            Volume {
                cache: cache.clone(),
                number,
                key: volume_key,
                dirs: Some(Dirs { dir, fanout }),
            },
            GFP_KERNEL,
        )
        .inspect_err(|_| cookie.unpin())?;
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

    /// The directory for files of this key hash.
    pub(crate) fn fanout(&self, key_hash: u32) -> Option<&PinnedDir> {
        let [low, ..] = key_hash.to_le_bytes();
        self.dirs.as_ref()?.fanout.get(usize::from(low))
    }

    /// Notes on disk that the volume was in use to the end.
    pub(crate) fn finish(volume: &Arc<Self>, cookie: &VolumeCookie) {
        let _scope = volume.cache.cred().scope();
        let Some(dirs) = &volume.dirs else {
            return;
        };
        if let Err(error) = xattr::set_volume(dirs.dir.path(), cookie.coherency()) {
            pr_warn!("setting a volume's attribute failed: {:?}\n", error);
        }
    }
}

impl Drop for Volume {
    /// The directories are free before the withdrawal, and with it the next user, is told.
    fn drop(&mut self) {
        drop(self.dirs.take());
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
        bury(live, &dir)?;
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

fn bury(live: &Live, dir: &PinnedDir) -> Result {
    bury_dentry(live, live.store(), dir.path().dentry())
}

/// Moves a directory of the store to the graveyard, for the daemon to delete.
///
/// # Errors
///
/// What [`PinnedDir::bury_dir`] says; nothing is changed then.
pub(crate) fn bury_dentry(
    live: &Live,
    parent: &PinnedDir,
    victim: &crate::vfs::path::Dentry,
) -> Result {
    /// Graves that were dug by an earlier cache may be in the way.
    const TRIES: usize = 1000;
    for _ in 0..TRIES {
        let seconds = crate::kcompat::time::real_seconds();
        let grave = kernel::str::CString::try_from_fmt(kernel::fmt!(
            "{:08x}{:08x}",
            seconds,
            live.next_grave()
        ))?;
        match parent.bury_dir(victim, live.graveyard(), grave.as_bytes()) {
            Err(error) if error == EEXIST => {}
            result => return result,
        }
    }
    Err(EEXIST)
}
