// SPDX-License-Identifier: GPL-2.0

//! Taking names out of the store: unlinking files, burying directories, for the cache itself and
//! for `cull`.
//!
//! C header: [`include/linux/namei.h`](srctree/include/linux/namei.h)
//!
//! A directory is not deleted but moved to the graveyard: to delete what is in it takes long, and is
//! left to the daemon.

use crate::errno::Errno;
use crate::kcompat::types::ARef;
use crate::vfs::dentry::Dentry;
use crate::vfs::dir::DirLock;
use crate::vfs::dir::PinnedDir;
use crate::vfs::in_use::is_in_use;
use crate::vfs::in_use::Mark;
use crate::vfs::path::Path;
use crate::vfs::renaming::RenameLock;
use kernel::prelude::*;

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
    RenameLock::take(dir, victim, graveyard.path(), grave)?.rename()
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
    let victim = existing(DirLock::take(dir)?.lookup(name)?)?;
    if !victim.is_dir() {
        return Err(ENOTDIR);
    }
    let lock = match RenameLock::take(dir, &victim, graveyard.path(), grave) {
        // Somebody else has taken it away meanwhile.
        Err(error) if error == Errno::ESTALE.into() => return Err(ENOENT),
        lock => lock?,
    };
    // Not before the locks: whoever opens it must not see a mark that goes again.
    let _mark = Mark::take(&victim).ok_or(EBUSY)?;
    lock.rename()
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
