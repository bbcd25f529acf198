// SPDX-License-Identifier: GPL-2.0

//! The graveyard: where directories of the store go that nobody finds any more, for the daemon to delete.

use crate::kcompat::str::to_bytes;
use crate::kcompat::time::real_seconds;
use crate::vfs::dentry::Dentry;
use crate::vfs::dir::PinnedDir;
use crate::vfs::removal;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::str::CString;

/// The directory `graveyard`.
pub(crate) struct Graveyard {
    dir: PinnedDir,
    /// Graves that were given out, for their names.
    graves: AtomicU32,
}

impl Graveyard {
    /// Nobody else has the directory.
    pub(super) fn new(dir: PinnedDir) -> Self {
        Graveyard {
            dir,
            graves: AtomicU32::new(0),
        }
    }

    /// Moves a directory of the store, which is in `parent`, here.
    ///
    /// # Errors
    ///
    /// What [`removal::bury`] says; nothing is changed then.
    pub(crate) fn bury(&self, parent: &PinnedDir, victim: &Dentry) -> Result {
        self.bury_with(|dir, grave| removal::bury(parent.path(), victim, dir, grave))
    }

    /// Calls `bury` with this directory and the names of graves until one is free.
    ///
    /// # Errors
    ///
    /// `EEXIST` if none is, what `bury` says.
    pub(crate) fn bury_with(&self, bury: impl Fn(&PinnedDir, &[u8]) -> Result) -> Result {
        /// Graves that were dug by an earlier cache may be in the way.
        const TRIES: usize = 1000;
        for _ in 0..TRIES {
            let number = self.graves.fetch_add(1, Ordering::Relaxed);
            let grave =
                CString::try_from_fmt(format_args!("{:08x}{:08x}", real_seconds(), number))?;
            match bury(&self.dir, to_bytes(&grave)) {
                Err(error) if error == EEXIST => {}
                result => return result,
            }
        }
        Err(EEXIST)
    }
}
