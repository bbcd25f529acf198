// SPDX-License-Identifier: GPL-2.0

//! Taking names out of the store: unlinking files, burying directories, for the cache itself and
//! for `cull`.
//!
//! C header: [`include/linux/namei.h`](srctree/include/linux/namei.h)
//!
//! A directory is not deleted but moved to the graveyard: to delete what is in it takes long, and is
//! left to the daemon.

use crate::bindings;
use crate::errno::Errno;
use crate::vfs::dir::is_name_in;
use crate::vfs::dir::lookup_locked;
use crate::vfs::dir::DirLock;
use crate::vfs::dir::PinnedDir;
use crate::vfs::in_use::is_in_use;
use crate::vfs::in_use::Mark;
use crate::vfs::path::Dentry;
use crate::vfs::path::Path;
use crate::vfs::security;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::ARef;

/// Takes the name of a file away.
///
/// # Errors
///
/// `ESTALE` if the name is no longer in this directory, and what a security module or the file
/// system says.
pub(crate) fn unlink(dir: &Path, victim: &Dentry) -> Result {
    let _access = dir.want_write()?;
    DirLock::take(dir)?.unlink(victim)
}

/// Moves `victim`, a directory in `dir`, to the name `grave` in `graveyard`. Whoever has marked it
/// as in use is the caller.
///
/// # Errors
///
/// `EEXIST` if the grave is taken, `ESTALE` if the victim is no longer here, `EBUSY` if something
/// is mounted on it or one of the two contains the other, `EROFS`, and what a security module or
/// the file system says.
pub(crate) fn bury(dir: &Path, victim: &Dentry, graveyard: &PinnedDir, grave: &[u8]) -> Result {
    let _access = dir.want_write()?;
    let lock = RenameLock::take(dir, graveyard.path())?;
    lock.check_movable(victim)?;
    lock.bury(victim, grave)
}

/// What has become of an entry that was to be culled.
pub(crate) enum Culled {
    /// It was a file, and is gone.
    Gone,
    /// It is a directory, which [`cull_dir`] is for.
    IsDirectory,
}

/// Removes `name`, which is no directory, from `dir`, unless it is in use.
///
/// # Errors
///
/// `ENOENT`, `EBUSY` if it is in use or something is mounted on it, and what a security module or
/// the file system says; nothing is changed then.
pub(crate) fn cull_file(dir: &Path, name: &[u8]) -> Result<Culled> {
    let _access = dir.want_write()?;
    // Freeing a large file takes long: the last reference goes after the lock.
    let victim;
    let lock = DirLock::take(dir)?;
    victim = existing(lock.lookup(name)?)?;
    if victim.is_dir() {
        return Ok(Culled::IsDirectory);
    }
    let mark = Mark::take(&victim).ok_or(EBUSY)?;
    lock.unlink(&victim)?;
    drop(mark);
    drop(lock);
    Ok(Culled::Gone)
}

/// Moves the directory `name` of `dir` to the name `grave` in `graveyard`, unless it is in use.
///
/// # Errors
///
/// As [`bury`], and `ENOENT`, `EBUSY` if it is in use, `ENOTDIR`; nothing is changed then.
pub(crate) fn cull_dir(dir: &Path, name: &[u8], graveyard: &PinnedDir, grave: &[u8]) -> Result {
    let _access = dir.want_write()?;
    let lock = RenameLock::take(dir, graveyard.path())?;
    // SAFETY: Both directories are locked.
    let victim = existing(unsafe { lookup_locked(dir.dentry(), name) }?)?;
    if !victim.is_dir() {
        return Err(ENOTDIR);
    }
    // Before the victim is locked: it may be one of the two that are.
    lock.check_movable(&victim)?;
    let _mark = Mark::take(&victim).ok_or(EBUSY)?;
    lock.bury(&victim, grave)
}

/// Whether `name` in `dir` is in use, as it looks now.
///
/// # Errors
///
/// `ENOENT`, and what the file system says.
pub(crate) fn name_is_in_use(dir: &Path, name: &[u8]) -> Result<bool> {
    let lock = DirLock::take(dir)?;
    let entry = existing(lock.lookup(name)?)?;
    Ok(is_in_use(&entry))
}

fn existing(dentry: ARef<Dentry>) -> Result<ARef<Dentry>> {
    if dentry.is_negative() {
        return Err(ENOENT);
    }
    Ok(dentry)
}

/// The locks of two directories, between which an entry is to be moved.
struct RenameLock<'a> {
    from: &'a Path,
    to: &'a Path,
    /// The one of the two that contains the other, if it does, or what contains it.
    trap: *mut bindings::dentry,
}

impl<'a> RenameLock<'a> {
    /// # Errors
    ///
    /// `EXDEV` if they are on different file systems, `ENOTDIR`.
    fn take(from: &'a Path, to: &'a Path) -> Result<Self> {
        if !from.is_on_file_system_of(to) {
            return Err(Errno::EXDEV.into());
        }
        if !from.dentry().is_dir() || !to.dentry().is_dir() {
            return Err(ENOTDIR);
        }
        // SAFETY: Both are live directories of one file system.
        let trap = kernel::error::from_err_ptr(unsafe {
            bindings::lock_rename(to.dentry().as_ptr(), from.dentry().as_ptr())
        })?;
        Ok(RenameLock { from, to, trap })
    }

    /// Checks that `victim` is an entry of the first directory that can be moved to the second.
    ///
    /// # Errors
    ///
    /// `ESTALE` if it is no longer there, `EBUSY` if it contains the second directory or something is
    /// mounted on it.
    fn check_movable(&self, victim: &Dentry) -> Result {
        // SAFETY: The directory is locked.
        if !unsafe { is_name_in(victim, self.from.dentry()) } {
            return Err(Errno::ESTALE.into());
        }
        // SAFETY: The victim is live.
        if victim.as_ptr() == self.trap || unsafe { bindings::d_mountpoint(victim.as_ptr()) } {
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Moves `victim`, which was checked, to a new name in the second directory.
    fn bury(&self, victim: &Dentry, grave: &[u8]) -> Result {
        // SAFETY: The graveyard is locked.
        let target = unsafe { lookup_locked(self.to.dentry(), grave) }?;
        if !target.is_negative() {
            return Err(EEXIST);
        }
        security::may_rename(self.from, victim, self.to, &target)?;
        // SAFETY: The map is static.
        let idmap = unsafe { bindings::no_idmap() };
        let mut rename = bindings::renamedata {
            old_mnt_idmap: idmap,
            old_dir: self.from.dentry().inode_ptr(),
            old_dentry: victim.as_ptr(),
            new_mnt_idmap: idmap,
            new_dir: self.to.dentry().inode_ptr(),
            new_dentry: target.as_ptr(),
            ..Default::default()
        };
        // SAFETY: Both directories are locked with `lock_rename`, and the checks that a rename
        // asks for were made above.
        to_result(unsafe { bindings::vfs_rename(&mut rename) })
    }
}

impl Drop for RenameLock<'_> {
    fn drop(&mut self) {
        // SAFETY: Locked in `take`.
        unsafe { bindings::unlock_rename(self.to.dentry().as_ptr(), self.from.dentry().as_ptr()) };
    }
}
