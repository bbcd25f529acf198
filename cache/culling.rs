// SPDX-License-Identifier: GPL-2.0

//! `cull` and `inuse`: the daemon removes what was not used for long.
//!
//! Both take a name in the caller's current directory, which must be in the store: whoever holds the
//! device acts with the cache's rights there, and nowhere else. The directory may be reached through
//! any mount, since a daemon may live in a mount namespace of its own.

use crate::cache::Cache;
use crate::errno::Errno;
use crate::fscache::stats;
use crate::stop_points::Place;
use crate::store::Dirs;
use crate::vfs::path::Path;
use crate::vfs::removal;
use crate::vfs::removal::Culled;
use kernel::prelude::*;

impl Cache {
    /// Removes the file or directory `name`, unless it is in use.
    ///
    /// # Errors
    ///
    /// `EXDEV` if the current directory is on another file system than the store, `EPERM` if it is
    /// not in the store, `ENOENT`, `EBUSY` if the entry is in use, `EIO` if the cache is dead, and
    /// what a security module or the file system says. Nothing is changed then, and the cache is as
    /// good as before.
    pub(crate) fn cull(&self, name: &[u8]) -> Result {
        let store = self.store();
        let dirs = store.dirs()?;
        let dir = directory_of_command(&dirs)?;
        store.stops().stop_at(Place::CullBegun);
        store.cred().run(|| match removal::cull_file(&dir, name)? {
            Culled::Gone => Ok(()),
            Culled::IsDirectory => dirs
                .graveyard()
                .bury_with(|graveyard, grave| removal::cull_dir(&dir, name, graveyard, grave)),
        })?;
        stats::count_culled();
        // If the file system does not tell, the next look will.
        let _ = store.look_at_space();
        Ok(())
    }

    /// Says whether the file or directory `name` may be culled.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is in use; otherwise as [`Cache::cull`].
    pub(crate) fn check_in_use(&self, name: &[u8]) -> Result {
        let store = self.store();
        let dirs = store.dirs()?;
        let dir = directory_of_command(&dirs)?;
        let in_use = store.cred().run(|| removal::name_is_in_use(&dir, name))?;
        if in_use {
            return Err(EBUSY);
        }
        Ok(())
    }
}

/// The current directory, reached through the cache's own mount.
fn directory_of_command(dirs: &Dirs) -> Result<Path> {
    let store = dirs.volumes().path();
    let current = Path::current_dir()?;
    if !current.is_on_file_system_of(store) {
        return Err(Errno::EXDEV.into());
    }
    if !current.is_in(store) {
        return Err(EPERM);
    }
    Ok(store.with_dentry(current.dentry().clone()))
}
