// SPDX-License-Identifier: GPL-2.0

//! Directories of the store, pinned against removal by others, and what is done in them.
//!
//! C headers: [`include/linux/namei.h`](srctree/include/linux/namei.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! Lock order: write access to the mount, then the directory's inode lock, then a child's.

use crate::bindings;
use crate::errno::Errno;
use crate::kcompat::types::ARef;
use crate::vfs::cred::Credentials;
use crate::vfs::dentry::Dentry;
use crate::vfs::in_use::Mark;
use crate::vfs::path::Path;
use crate::vfs::security;
use crate::vfs::store_file::StoreFile;
use kernel::error::to_result;
use kernel::prelude::*;

const DIR_MODE: bindings::umode_t = 0o700;

/// The lock of a directory's inode, for changing what names the directory holds.
pub(super) struct DirLock<'a>(&'a Path);

impl<'a> DirLock<'a> {
    /// # Errors
    ///
    /// `ENOTDIR`.
    pub(super) fn take(dir: &'a Path) -> Result<Self> {
        if !dir.dentry().is_dir() {
            return Err(ENOTDIR);
        }
        // SAFETY: A directory's dentry is positive and keeps its inode.
        unsafe { bindings::inode_lock_parent(dir.dentry().inode_ptr()) };
        Ok(DirLock(dir))
    }

    /// Looks a name up in the locked directory; the result may be negative.
    pub(super) fn lookup(&self, name: &[u8]) -> Result<ARef<Dentry>> {
        // SAFETY: The directory is locked.
        unsafe { lookup_locked(self.0.dentry(), name) }
    }

    /// Removes a name that is no directory's.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the name is no longer in this directory, `EBUSY` if something is mounted on it,
    /// `EACCES` and the like from a security module, and what the file system says.
    pub(super) fn unlink(&self, victim: &Dentry) -> Result {
        if !self.holds(victim) {
            return Err(Errno::ESTALE.into());
        }
        // SAFETY: The victim is live.
        if unsafe { bindings::d_mountpoint(victim.as_ptr()) } {
            return Err(EBUSY);
        }
        security::may_unlink(self.0, victim)?;
        // A dentry with a second reference keeps its inode, which others may have marked.
        let _keeps_inode: ARef<Dentry> = victim.into();
        // SAFETY: The directory is locked, the victim is one of its names; the function itself refuses
        // a negative one and a directory.
        to_result(unsafe {
            bindings::vfs_unlink(
                bindings::no_idmap(),
                self.0.dentry().inode_ptr(),
                victim.as_ptr(),
                core::ptr::null_mut(),
            )
        })
    }

    /// Whether `child` is a name in the directory still.
    fn holds(&self, child: &Dentry) -> bool {
        // SAFETY: The directory is locked.
        unsafe { is_name_in(child, self.0.dentry()) }
    }

    /// Makes a directory. The name is negative.
    fn make_dir(&self, name: &[u8], dentry: ARef<Dentry>) -> Result<ARef<Dentry>> {
        security::may_make_dir(self.0, &dentry, DIR_MODE)?;
        // SAFETY: The parent is locked, and `dentry` is one of its negative names.
        let made =
            unsafe { bindings::mkdir(self.0.dentry().inode_ptr(), dentry.as_ptr(), DIR_MODE) };
        // SAFETY: The function returns an error pointer or a reference.
        let dentry = unsafe { Dentry::from_err_ptr(made) }?;
        // SAFETY: The dentry is live.
        if !dentry.is_negative() && !unsafe { bindings::d_unhashed(dentry.as_ptr()) } {
            return Ok(dentry);
        }
        // The file system has put the new directory behind another dentry.
        let dentry = self.lookup(name)?;
        if dentry.is_negative() {
            return Err(Errno::ESTALE.into());
        }
        Ok(dentry)
    }
}

impl Drop for DirLock<'_> {
    fn drop(&mut self) {
        // SAFETY: Taken in `take`.
        unsafe { bindings::inode_unlock(self.0.dentry().inode_ptr()) }
    }
}

/// Looks a name up; the result may be negative.
///
/// # Safety
///
/// The directory's inode is locked.
pub(super) unsafe fn lookup_locked(dir: &Dentry, name: &[u8]) -> Result<ARef<Dentry>> {
    let len = i32::try_from(name.len()).map_err(|_| Errno::ENAMETOOLONG)?;
    // SAFETY: The caller holds the lock, and `name` is valid for `len` bytes.
    let dentry = unsafe { bindings::lookup_noperm(name.as_ptr().cast(), dir.as_ptr(), len) };
    // SAFETY: The function returns an error pointer or a reference.
    unsafe { Dentry::from_err_ptr(dentry) }
}

/// Whether `child` is a name in `dir` still.
///
/// # Safety
///
/// The directory's inode is locked, which keeps its children's parents from changing.
pub(super) unsafe fn is_name_in(child: &Dentry, dir: &Dentry) -> bool {
    // SAFETY: The child is live.
    let removed = unsafe { bindings::d_unhashed(child.as_ptr()) };
    // SAFETY: The child is live. Another directory may be its parent, and change, but not this one.
    let parent = unsafe { core::ptr::addr_of!((*child.as_ptr()).d_parent).read_volatile() };
    !removed && parent == dir.as_ptr()
}

/// What a name of the store stands for.
pub(crate) enum Entry {
    /// Nothing.
    Nothing,
    /// A file, opened and marked as in use.
    File(StoreFile),
    /// Neither a file nor nothing.
    Other(ARef<Dentry>),
}

/// A directory of the store that is marked as in use; the mark goes when this is dropped.
pub(crate) struct PinnedDir {
    path: Path,
    _mark: Mark,
}

impl PinnedDir {
    /// Opens the directory `name` below `parent`, making it if there is none; tells whether it was
    /// made. `may_create` is asked first, without a lock. One that is culled meanwhile is made anew.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody else uses the directory, `ENOTDIR` if it is none, `EPERM` if it cannot
    /// hold a cache's entries, `EOPNOTSUPP` if two names in it that differ in their case alone are one, with a line in
    /// the log, `ESTALE` if it is removed again and again, and what a security module or the file system says.
    pub(crate) fn open_or_create(
        parent: &Path,
        name: &[u8],
        may_create: impl Fn() -> Result,
    ) -> Result<(Self, bool)> {
        const TRIES: usize = 10;
        for _ in 0..TRIES {
            if lookup(parent, name)?.is_some() {
                if let Some(dir) = Self::open(parent, name)? {
                    return Ok((dir, false));
                }
            } else {
                may_create()?;
                return Self::create(parent, name);
            }
        }
        Err(Errno::ESTALE.into())
    }

    /// Opens an existing directory; `None` if there is none of this name.
    fn open(parent: &Path, name: &[u8]) -> Result<Option<Self>> {
        let lock = DirLock::take(parent)?;
        let dentry = lock.lookup(name)?;
        if dentry.is_negative() {
            return Ok(None);
        }
        Self::pin(parent, dentry).map(Some)
    }

    /// Makes a directory, unless somebody was faster; tells whether it did.
    fn create(parent: &Path, name: &[u8]) -> Result<(Self, bool)> {
        let _access = parent.want_write()?;
        let lock = DirLock::take(parent)?;
        let mut dentry = lock.lookup(name)?;
        let created = dentry.is_negative();
        if created {
            dentry = lock.make_dir(name, dentry)?;
        }
        Ok((Self::pin(parent, dentry)?, created))
    }

    /// Marks what was looked up in the same hold of the parent's lock.
    fn pin(parent: &Path, dentry: ARef<Dentry>) -> Result<Self> {
        if !dentry.is_dir() {
            return Err(ENOTDIR);
        }
        if !dentry.holds_cache_entries() {
            return Err(EPERM);
        }
        if dentry.ignores_case() {
            pr_err!("a directory of the store ignores the case of names (chattr +F)\n");
            return Err(Errno::EOPNOTSUPP.into());
        }
        let _mark = Mark::take(&dentry).ok_or(EBUSY)?;
        let path = parent.with_dentry(dentry);
        Ok(PinnedDir { path, _mark })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is also found under `name` in `parent`.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn is_also(&self, parent: &Path, name: &[u8]) -> Result<bool> {
        let other = lookup(parent, name)?;
        Ok(other.is_some_and(|other| other.inode_ptr() == self.path.dentry().inode_ptr()))
    }

    /// Opens the file `name` for direct reading and writing, and marks it as in use.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody uses it already, and what the file system says.
    pub(crate) fn open_file(&self, name: &[u8], cred: &Credentials) -> Result<Entry> {
        let lock = DirLock::take(&self.path)?;
        let dentry = lock.lookup(name)?;
        if dentry.is_negative() {
            return Ok(Entry::Nothing);
        }
        if !dentry.is_regular() {
            return Ok(Entry::Other(dentry));
        }
        let mark = Mark::take(&dentry).ok_or(EBUSY)?;
        drop(lock);
        StoreFile::open(&self.path.with_dentry(dentry), mark, cred).map(Entry::File)
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

    /// Gives an unnamed file of this directory the name `name`; what had that name before loses it.
    ///
    /// # Errors
    ///
    /// What a security module or the file system says.
    pub(crate) fn link(&self, file: &mut StoreFile, name: &[u8]) -> Result {
        let _access = self.path.want_write()?;
        // Freeing a large file takes long: what is replaced goes after the lock.
        let replaced;
        let lock = DirLock::take(&self.path)?;
        let mut dentry = lock.lookup(name)?;
        if !dentry.is_negative() && dentry.inode_ptr() != file.path().dentry().inode_ptr() {
            replaced = dentry;
            lock.unlink(&replaced)?;
            dentry = lock.lookup(name)?;
        }
        if dentry.is_negative() {
            // SAFETY: The directory is locked, `dentry` is one of its negative names, and the file
            // is on the same mount.
            to_result(unsafe {
                bindings::vfs_link(
                    file.path().dentry().as_ptr(),
                    bindings::no_idmap(),
                    self.path.dentry().inode_ptr(),
                    dentry.as_ptr(),
                    core::ptr::null_mut(),
                )
            })?;
        }
        drop(lock);
        file.set_path(self.path.with_dentry(dentry));
        Ok(())
    }
}

fn lookup(dir: &Path, name: &[u8]) -> Result<Option<ARef<Dentry>>> {
    let len = i32::try_from(name.len()).map_err(|_| Errno::ENAMETOOLONG)?;
    // SAFETY: The directory is live, and `name` is valid for `len` bytes.
    let dentry = unsafe {
        bindings::lookup_noperm_positive_unlocked(name.as_ptr().cast(), dir.dentry().as_ptr(), len)
    };
    // SAFETY: The function returns an error pointer or a reference.
    match unsafe { Dentry::from_err_ptr(dentry) } {
        Ok(dentry) => Ok(Some(dentry)),
        Err(error) if error == ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}
