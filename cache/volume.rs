// SPDX-License-Identifier: GPL-2.0

//! What stands behind an fscache volume: its directories, and its place among the cache's volumes.

use crate::cache::Cache;
use crate::fscache::attachment::Attachment;
use crate::fscache::volume::VolumeCookie;
use crate::stop_points::Place;
use crate::store::volume::VolumeDir;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::UniqueArc;

/// A volume in use.
pub(crate) struct Volume {
    cache: Arc<Cache>,
    number: u64,
    /// `None` while the volume is being dropped. Its objects have it, too, and let go of it before they let go of
    /// their cookie, and so of the volume.
    dir: Option<Arc<VolumeDir>>,
}

impl Volume {
    /// Opens or makes the directories of `cookie`.
    ///
    /// # Errors
    ///
    /// `EIO` if the cache is being withdrawn, `ENOMEM`, those of [`VolumeDir::open`].
    pub(crate) fn acquire(
        cache: Arc<Cache>,
        cookie: &VolumeCookie,
        attachment: Attachment<Volume>,
    ) -> Result<Arc<Self>> {
        let store = cache.store();
        let dirs = store.dirs()?;
        let open = || VolumeDir::open(store, &dirs, cookie.key(), cookie.coherency());
        let dir = store.cred().run(open)?;
        store.stops().stop_at(Place::VolumeOpened);
        // From when the cache knows the volume, nothing may fail.
        let memory = UniqueArc::new_uninit(GFP_KERNEL)?;
        let number = cache.volumes().attach(attachment)?;
        let volume = memory.write(Volume {
            cache: cache.clone(),
            number,
            dir: Some(dir),
        });
        Ok(volume.into())
    }

    /// The cache.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Its directories.
    ///
    /// # Errors
    ///
    /// `EIO` if the volume is being dropped.
    pub(crate) fn dir(&self) -> Result<&Arc<VolumeDir>> {
        self.dir.as_ref().ok_or(EIO)
    }

    /// Notes on disk that the volume was in use to the end.
    pub(crate) fn finish(&self, cookie: &VolumeCookie) {
        let Some(dir) = &self.dir else {
            return;
        };
        let note = || dir.note_end(cookie.coherency());
        if let Err(error) = self.cache.store().cred().run(note) {
            pr_warn!("setting a volume's attribute failed: {:?}\n", error);
        }
    }
}

impl Drop for Volume {
    /// The directories are free before the withdrawal, and with it the next user, is told.
    fn drop(&mut self) {
        drop(self.dir.take());
        self.cache.volumes().forget(self.number);
    }
}
