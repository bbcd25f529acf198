// SPDX-License-Identifier: GPL-2.0

//! `cull` and `inuse`: the daemon removes what was not used for long.
//!
//! Both take a name in the caller's current directory, which must be in the store: whoever holds the
//! device acts with the cache's rights there, and nowhere else. The directory may be reached through
//! any mount, since a daemon may live in a mount namespace of its own.

use crate::cache::Cache;
use crate::cache::Live;
use crate::errno::Errno;
use crate::fscache::stats;
use crate::kcompat::str::to_bytes;
use crate::stop_points::Place;
use crate::vfs::dir::PinnedDir;
use crate::vfs::path::Dentry;
use crate::vfs::path::Path;
use crate::vfs::removal;
use crate::vfs::removal::Culled;
use kernel::prelude::*;
use kernel::str::CString;

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
        let live = self.live()?;
        let dir = directory_of_command(&live)?;
        self.daemon().stop_at(Place::CullBegun);
        self.cred().run(|| match removal::cull_file(&dir, name)? {
            Culled::Gone => Ok(()),
            Culled::IsDirectory => into_grave(&live, |grave| {
                removal::cull_dir(&dir, name, live.graveyard(), grave)
            }),
        })?;
        stats::count_culled();
        // If the file system does not tell, the next look will.
        let _ = self.look_at_space();
        Ok(())
    }

    /// Says whether the file or directory `name` may be culled.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is in use; otherwise as [`Cache::cull`].
    pub(crate) fn check_in_use(&self, name: &[u8]) -> Result {
        let live = self.live()?;
        let dir = directory_of_command(&live)?;
        let in_use = self.cred().run(|| removal::name_is_in_use(&dir, name))?;
        if in_use {
            return Err(EBUSY);
        }
        Ok(())
    }
}

/// The current directory, reached through the cache's own mount.
fn directory_of_command(live: &Live) -> Result<Path> {
    let store = live.store().path();
    let current = Path::current_dir()?;
    if !current.is_on_file_system_of(store) {
        return Err(Errno::EXDEV.into());
    }
    if !current.is_in(store) {
        return Err(EPERM);
    }
    Ok(store.with_dentry(current.dentry().clone()))
}

/// Moves a directory of the store, which is in `parent`, to the graveyard, for the daemon to delete.
///
/// # Errors
///
/// What [`removal::bury`] says; nothing is changed then.
pub(crate) fn bury(live: &Live, parent: &PinnedDir, victim: &Dentry) -> Result {
    into_grave(live, |grave| {
        removal::bury(parent.path(), victim, live.graveyard(), grave)
    })
}

/// Calls `bury` with the names of graves until one is free.
fn into_grave(live: &Live, bury: impl Fn(&[u8]) -> Result) -> Result {
    /// Graves that were dug by an earlier cache may be in the way.
    const TRIES: usize = 1000;
    for _ in 0..TRIES {
        let seconds = crate::kcompat::time::real_seconds();
        let grave =
            CString::try_from_fmt(format_args!("{:08x}{:08x}", seconds, live.next_grave()))?;
        match bury(to_bytes(&grave)) {
            Err(error) if error == EEXIST => {}
            result => return result,
        }
    }
    Err(EEXIST)
}
