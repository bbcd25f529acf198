// SPDX-License-Identifier: GPL-2.0

//! A volume's directory in the store, with 256 directories to spread the files over.
//!
//! On disk: `cache/I<volume key>/@<xx>/`, see `docs/protocol.md`. The 256 are opened, and made, when
//! the first object asks for each.
//!
//! Locking: `fanout` is held while a directory is opened or made: it may wait for the disk.

use crate::errno::Errno;
use crate::store::key;
use crate::store::space::Need;
use crate::store::xattr;
use crate::store::Dirs;
use crate::store::Store;
use crate::vfs::dir::PinnedDir;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::Mutex;

const FANOUT: usize = 256;

/// The directories of a volume, pinned as long as this is there.
#[pin_data]
pub(crate) struct VolumeDir {
    key: KVec<u8>,
    dir: PinnedDir,
    /// By the low byte of the key hash; those that were asked for.
    #[pin]
    fanout: Mutex<KVec<Option<Arc<PinnedDir>>>>,
}

impl VolumeDir {
    /// Opens or makes the directory of the volume `key`, whose coherency data is `coherency`. One that belongs to an
    /// older volume of the same name, or to nothing (its maker died in the middle), is buried and made anew. Called
    /// with the store's credentials in force.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is in use, `ENAMETOOLONG`, `ENOBUFS` if the disk is too full, what the
    /// file system says.
    pub(crate) fn open(
        store: &Store,
        dirs: &Dirs,
        key: &[u8],
        coherency: &[u8],
    ) -> Result<Arc<Self>> {
        let dir = open_dir(store, dirs, key, coherency)?;
        let mut fanout = KVec::with_capacity(FANOUT, GFP_KERNEL)?;
        for _ in 0..FANOUT {
            fanout.push(None, GFP_KERNEL)?;
        }
        let mut its_key = KVec::new();
        its_key.extend_from_slice(key, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                key: its_key,
                dir,
                fanout <- new_mutex!(fanout, "cachefiles_volume"),
            }),
            GFP_KERNEL,
        )
    }

    /// The volume's key, without a NUL.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The directory for files of this key hash. Called with the store's credentials in force.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody else uses it, `ENOBUFS` if there is no space to make it, what the file system says.
    pub(crate) fn fanout(&self, store: &Store, key_hash: u32) -> Result<Arc<PinnedDir>> {
        let [low, ..] = key_hash.to_le_bytes();
        let mut fanout = self.fanout.lock();
        let place = fanout.get_mut(usize::from(low)).ok_or(EIO)?;
        if let Some(dir) = place {
            return Ok(dir.clone());
        }
        let name = key::fanout_name(key_hash);
        let has_space = || store.has_space(Need::File);
        let (dir, _) = PinnedDir::open_or_create(self.dir.path(), &name, has_space)?;
        let dir = Arc::new(dir, GFP_KERNEL)?;
        *place = Some(dir.clone());
        Ok(dir)
    }

    /// Notes on disk that the volume was in use to the end. Called with the store's credentials in force.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, `EROFS` and what else the file system says.
    pub(crate) fn note_end(&self, coherency: &[u8]) -> Result {
        xattr::set_volume(self.dir.path(), coherency)
    }
}

fn open_dir(store: &Store, dirs: &Dirs, key: &[u8], coherency: &[u8]) -> Result<PinnedDir> {
    let name = key::volume_name(key)?;
    let open = || {
        PinnedDir::open_or_create(dirs.volumes().path(), name.as_bytes(), || {
            store.has_space(Need::File)
        })
    };
    let (mut dir, mut created) = open()?;
    if !created && !xattr::check_volume(dir.path(), coherency)? {
        dirs.graveyard().bury(dirs.volumes(), dir.path().dentry())?;
        drop(dir);
        (dir, created) = open()?;
        if !created {
            return Err(Errno::ESTALE.into());
        }
    }
    if created {
        xattr::set_volume(dir.path(), coherency)?;
    }
    Ok(dir)
}
