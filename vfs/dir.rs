// SPDX-License-Identifier: GPL-2.0

//! Directories of the store, pinned against removal by others, and what is done in them.
//!
//! C headers: [`include/linux/namei.h`](srctree/include/linux/namei.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! Lock order: write access to the mount, then the directory's inode lock, then a child's. The
//! inode lock protects `S_KERNEL_FILE`, the mark by which whoever uses an inode of the store keeps
//! `cull` and other users away.

use crate::bindings;
use crate::errno::Errno;
use crate::vfs::cred::Credentials;
use crate::vfs::path::Dentry;
use crate::vfs::path::Path;
use crate::vfs::store_file::StoreFile;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::ARef;

const DIR_MODE: bindings::umode_t = 0o700;

/// The lock of a directory's inode, for changing what names the directory holds.
struct DirLock<'a>(&'a Dentry);

impl<'a> DirLock<'a> {
    fn take(dir: &'a Dentry) -> Self {
        // SAFETY: A directory's dentry is positive and keeps its inode.
        unsafe { bindings::inode_lock_parent(dir.inode_ptr()) };
        DirLock(dir)
    }

    /// Looks a name up in the locked directory; the result may be negative.
    fn lookup(&self, name: &[u8]) -> Result<ARef<Dentry>> {
        let len = i32::try_from(name.len()).map_err(|_| Errno::ENAMETOOLONG)?;
        // SAFETY: The directory is locked, and `name` is valid for `len` bytes.
        let dentry =
            unsafe { bindings::lookup_one_len(name.as_ptr().cast(), self.0.as_ptr(), len) };
        // SAFETY: The function returns an error pointer or a reference.
        unsafe { Dentry::from_err_ptr(dentry) }
    }

    fn unlink(&self, victim: &Dentry) -> Result {
        // SAFETY: The directory is locked, the victim is one of its positive names.
        to_result(unsafe {
            bindings::vfs_unlink(
                bindings::no_idmap(),
                self.0.inode_ptr(),
                victim.as_ptr(),
                core::ptr::null_mut(),
            )
        })
    }

    fn holds(&self, child: &Dentry) -> bool {
        is_name_in(child, self.0)
    }
}

/// Whether `child` is a name in `dir` still; `dir` is locked.
fn is_name_in(child: &Dentry, dir: &Dentry) -> bool {
    // SAFETY: The child is live.
    let removed = unsafe { bindings::d_unhashed(child.as_ptr()) };
    // SAFETY: The directory's lock keeps its children's parents from changing.
    !removed && unsafe { (*child.as_ptr()).d_parent } == dir.as_ptr()
}

impl Drop for DirLock<'_> {
    fn drop(&mut self) {
        // SAFETY: Taken in `take`.
        unsafe { bindings::inode_unlock(self.0.inode_ptr()) }
    }
}

/// Marks an inode as used by this module; `false` if somebody uses it already.
pub(super) fn mark_in_use(dentry: &Dentry) -> bool {
    let inode = dentry.inode_ptr();
    // SAFETY: The dentry is positive and keeps its inode.
    unsafe { bindings::inode_lock(inode) };
    // SAFETY: The inode's lock is held, which protects the flags.
    let flags = unsafe { &mut (*inode).i_flags };
    let free = *flags & bindings::S_KERNEL_FILE_FLAG == 0;
    *flags |= bindings::S_KERNEL_FILE_FLAG;
    // SAFETY: Locked above.
    unsafe { bindings::inode_unlock(inode) };
    free
}

/// Takes the mark back. Only its owner may.
pub(super) fn unmark_in_use(dentry: &Dentry) {
    let inode = dentry.inode_ptr();
    // SAFETY: The dentry is positive and keeps its inode.
    unsafe { bindings::inode_lock(inode) };
    // SAFETY: The inode's lock is held, which protects the flags.
    unsafe { (*inode).i_flags &= !bindings::S_KERNEL_FILE_FLAG };
    // SAFETY: Locked above.
    unsafe { bindings::inode_unlock(inode) };
}

/// A directory of the store that is marked as in use; the mark goes when this is dropped.
pub(crate) struct PinnedDir {
    path: Path,
}

impl PinnedDir {
    /// Opens the directory `name` below `parent`, making it if there is none; tells whether it was
    /// made. `may_create` is asked first, without a lock.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody else uses the directory, `ENOTDIR` if it is none, `EPERM` if it cannot
    /// hold a cache's entries, `ESTALE` if it was removed at once, and what the file system says.
    pub(crate) fn open_or_create(
        parent: &Path,
        name: &[u8],
        may_create: impl FnOnce() -> Result,
    ) -> Result<(Self, bool)> {
        let (dentry, created) = match lookup(parent, name)? {
            Some(dentry) => (dentry, false),
            None => {
                may_create()?;
                make_dir(parent, name)?
            }
        };
        if !dentry.is_dir() {
            return Err(ENOTDIR);
        }
        if !dentry.holds_cache_entries() {
            return Err(EPERM);
        }
        if !mark_in_use(&dentry) {
            return Err(EBUSY);
        }
        let path = parent.with_dentry(dentry);
        Ok((PinnedDir { path }, created))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks up an existing name.
    ///
    /// # Errors
    ///
    /// What the file system says; a name that names nothing is `Ok(None)`.
    pub(crate) fn lookup(&self, name: &[u8]) -> Result<Option<ARef<Dentry>>> {
        lookup(&self.path, name)
    }

    /// Opens an unnamed file for direct reading and writing, marked as in use.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the file system has no direct I/O, `ENOSPC` and what else it says.
    pub(crate) fn create_tmpfile(&self, cred: &Credentials) -> Result<StoreFile> {
        let access = self.path.want_write()?;
        let file = StoreFile::create_tmpfile(&self.path, cred)?;
        drop(access);
        Ok(file)
    }

    /// Gives `file` the name `name`; what had that name before loses it.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn link(&self, file: &StoreFile, name: &[u8]) -> Result {
        let _access = self.path.want_write()?;
        let lock = DirLock::take(self.path.dentry());
        let mut dentry = lock.lookup(name)?;
        if !dentry.is_negative() {
            if dentry.inode_ptr() == file.path().dentry().inode_ptr() {
                return Ok(());
            }
            lock.unlink(&dentry)?;
            dentry = lock.lookup(name)?;
        }
        // SAFETY: The directory is locked, `dentry` is one of its negative names, and the file is
        // on the same mount.
        to_result(unsafe {
            bindings::vfs_link(
                file.path().dentry().as_ptr(),
                bindings::no_idmap(),
                self.path.dentry().inode_ptr(),
                dentry.as_ptr(),
                core::ptr::null_mut(),
            )
        })
    }

    /// Takes the name of a file away.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the name is no longer in this directory, and what the file system says.
    pub(crate) fn unlink(&self, victim: &Dentry) -> Result {
        let _access = self.path.want_write()?;
        let lock = DirLock::take(self.path.dentry());
        if !lock.holds(victim) {
            return Err(Errno::ESTALE.into());
        }
        lock.unlink(victim)
    }

    /// Moves `victim`, a directory in this one, to the name `grave` in `graveyard`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the grave is taken, `ESTALE` if the victim is no longer here, `EBUSY` if
    /// something is mounted on it or one of the two contains the other, `EROFS`, and what the file
    /// system says.
    pub(crate) fn bury_dir(&self, victim: &Dentry, graveyard: &PinnedDir, grave: &[u8]) -> Result {
        let _access = self.path.want_write()?;
        let (from, to) = (self.path.dentry(), graveyard.path.dentry());
        // SAFETY: Both are live directories of one mount.
        let trap = kernel::error::from_err_ptr(unsafe {
            bindings::lock_rename(to.as_ptr(), from.as_ptr())
        })?;
        let result = self.bury_locked(victim, to, grave, trap);
        // SAFETY: Locked above.
        unsafe { bindings::unlock_rename(to.as_ptr(), from.as_ptr()) };
        result
    }

    fn bury_locked(
        &self,
        victim: &Dentry,
        graveyard: &Dentry,
        grave: &[u8],
        trap: *mut bindings::dentry,
    ) -> Result {
        let from = self.path.dentry();
        if !is_name_in(victim, from) {
            return Err(Errno::ESTALE.into());
        }
        // SAFETY: The victim is live.
        if victim.as_ptr() == trap || unsafe { bindings::d_mountpoint(victim.as_ptr()) } {
            return Err(EBUSY);
        }
        let len = i32::try_from(grave.len()).map_err(|_| Errno::ENAMETOOLONG)?;
        // SAFETY: The graveyard is locked, and `grave` is valid for `len` bytes.
        let target =
            unsafe { bindings::lookup_one_len(grave.as_ptr().cast(), graveyard.as_ptr(), len) };
        // SAFETY: The function returns an error pointer or a reference.
        let target = unsafe { Dentry::from_err_ptr(target) }?;
        if !target.is_negative() {
            return Err(EEXIST);
        }
        // SAFETY: The map is static.
        let idmap = unsafe { bindings::no_idmap() };
        let mut rename = bindings::renamedata {
            old_mnt_idmap: idmap,
            old_dir: from.inode_ptr(),
            old_dentry: victim.as_ptr(),
            new_mnt_idmap: idmap,
            new_dir: graveyard.inode_ptr(),
            new_dentry: target.as_ptr(),
            ..Default::default()
        };
        // SAFETY: Both directories are locked with `lock_rename`, and the checks that a rename
        // asks for were made above.
        to_result(unsafe { bindings::vfs_rename(&mut rename) })
    }
}

impl Drop for PinnedDir {
    fn drop(&mut self) {
        unmark_in_use(self.path.dentry());
    }
}

fn lookup(dir: &Path, name: &[u8]) -> Result<Option<ARef<Dentry>>> {
    let len = i32::try_from(name.len()).map_err(|_| Errno::ENAMETOOLONG)?;
    // SAFETY: The directory is live, and `name` is valid for `len` bytes.
    let dentry = unsafe {
        bindings::lookup_positive_unlocked(name.as_ptr().cast(), dir.dentry().as_ptr(), len)
    };
    // SAFETY: The function returns an error pointer or a reference.
    match unsafe { Dentry::from_err_ptr(dentry) } {
        Ok(dentry) => Ok(Some(dentry)),
        Err(error) if error == ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a directory, unless somebody else was faster; tells whether it did.
fn make_dir(parent: &Path, name: &[u8]) -> Result<(ARef<Dentry>, bool)> {
    let _access = parent.want_write()?;
    let lock = DirLock::take(parent.dentry());
    let dentry = lock.lookup(name)?;
    if !dentry.is_negative() {
        return Ok((dentry, false));
    }
    // SAFETY: The parent is locked, and `dentry` is one of its negative names.
    to_result(unsafe {
        bindings::vfs_mkdir(
            bindings::no_idmap(),
            parent.dentry().inode_ptr(),
            dentry.as_ptr(),
            DIR_MODE,
        )
    })?;
    // SAFETY: The dentry is live.
    if dentry.is_negative() || unsafe { bindings::d_unhashed(dentry.as_ptr()) } {
        // The file system has put the new directory behind another dentry.
        let dentry = lock.lookup(name)?;
        if dentry.is_negative() {
            return Err(Errno::ESTALE.into());
        }
        return Ok((dentry, true));
    }
    Ok((dentry, true))
}
