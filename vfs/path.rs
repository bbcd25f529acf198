// SPDX-License-Identifier: GPL-2.0

//! Mounts and paths.
//!
//! C headers: [`include/linux/path.h`](srctree/include/linux/path.h),
//! [`include/linux/mount.h`](srctree/include/linux/mount.h)

use crate::bindings;
use crate::kcompat::types::ARef;
use crate::kcompat::types::AlwaysRefCounted;
use crate::vfs::dentry::Dentry;
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

/// A mounted file system, as one mount shows it.
#[repr(transparent)]
pub(crate) struct Mount(Opaque<bindings::vfsmount>);

// SAFETY: A mount may be used from any thread.
unsafe impl Send for Mount {}
// SAFETY: As above; its fields do not change.
unsafe impl Sync for Mount {}

// SAFETY: `mntget` and `mntput` count references.
unsafe impl AlwaysRefCounted for Mount {
    fn inc_ref(&self) {
        // SAFETY: The existence of `self` shows that the count is above zero.
        unsafe { bindings::mntget(self.0.get()) };
    }

    unsafe fn dec_ref(mount: NonNull<Self>) {
        // SAFETY: The caller gives away a reference that it owns.
        unsafe { bindings::mntput(mount.cast().as_ptr()) }
    }
}

/// A dentry, and the mount through which it was reached.
pub(crate) struct Path {
    mount: ARef<Mount>,
    dentry: ARef<Dentry>,
}

impl Path {
    /// Looks up an existing directory by name, as the current task sees it.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR` and what else a lookup can say.
    pub(crate) fn lookup_dir(name: &CStr) -> Result<Self> {
        let mut path = bindings::path::default();
        // SAFETY: `name` is a string and `path` is valid for writes.
        to_result(unsafe {
            bindings::kern_path(
                name.as_char_ptr(),
                bindings::LOOKUP_DIRECTORY_FLAG,
                &mut path,
            )
        })?;
        // SAFETY: On success the path comes with a reference to each.
        unsafe { Self::from_raw(path) }
    }

    /// The current directory of the current task.
    ///
    /// # Errors
    ///
    /// `ENOENT` for a task that has none, which is none of user space's.
    pub(crate) fn current_dir() -> Result<Self> {
        let mut path = bindings::path::default();
        // SAFETY: The current task is one that makes a system call, and has a directory; `path` is
        // valid for writes.
        unsafe { bindings::get_current_pwd(&mut path) };
        // SAFETY: The path comes with a reference to each.
        unsafe { Self::from_raw(path) }
    }

    /// # Safety
    ///
    /// The path's references, unless they are null, are the caller's and are given away.
    unsafe fn from_raw(path: bindings::path) -> Result<Self> {
        let mount = NonNull::new(path.mnt.cast()).ok_or(ENOENT)?;
        let dentry = NonNull::new(path.dentry.cast()).ok_or(ENOENT)?;
        Ok(Path {
            // SAFETY: The caller gives its reference away.
            mount: unsafe { ARef::from_raw(mount) },
            // SAFETY: As above.
            dentry: unsafe { ARef::from_raw(dentry) },
        })
    }

    /// Whether both are on one file system, through whatever mounts.
    pub(crate) fn is_on_file_system_of(&self, other: &Self) -> bool {
        core::ptr::eq(self.superblock(), other.superblock())
    }

    /// Whether this is `ancestor` or below it, on the same file system, as it looks now.
    pub(crate) fn is_in(&self, ancestor: &Self) -> bool {
        // SAFETY: Both dentries are live.
        unsafe { bindings::is_subdir(self.dentry.as_ptr(), ancestor.dentry.as_ptr()) }
    }

    /// `dentry`, reached through the same mount.
    pub(crate) fn with_dentry(&self, dentry: ARef<Dentry>) -> Self {
        Path {
            mount: self.mount.clone(),
            dentry,
        }
    }

    /// The dentry.
    pub(crate) fn dentry(&self) -> &ARef<Dentry> {
        &self.dentry
    }

    /// The C structure, valid as long as `self`; it owns no references.
    pub(crate) fn as_raw(&self) -> bindings::path {
        bindings::path {
            mnt: self.mount.0.get(),
            dentry: self.dentry.as_ptr(),
        }
    }

    /// Whether user ids are mapped on this mount.
    pub(crate) fn is_idmapped(&self) -> bool {
        // SAFETY: The mount is live.
        unsafe { bindings::is_idmapped_mnt(self.mount.0.get()) }
    }

    /// The superblock, which lives as long as the mount.
    pub(super) fn superblock(&self) -> *mut bindings::super_block {
        // SAFETY: The dentry is live; its superblock is set for good.
        unsafe { (*self.dentry.as_ptr()).d_sb }
    }

    /// Whether the file system is mounted read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: The superblock is live.
        let superblock = unsafe { bindings::sb_rdonly(self.superblock()) };
        // SAFETY: The mount is live.
        superblock || unsafe { bindings::__mnt_is_readonly(self.mount.0.get()) }
    }

    /// Announces writes through this mount, which keeps it from being frozen or made read-only.
    /// Taken before any lock of an inode.
    ///
    /// # Errors
    ///
    /// `EROFS`.
    pub(crate) fn want_write(&self) -> Result<WriteAccess<'_>> {
        // SAFETY: The mount is live.
        to_result(unsafe { bindings::mnt_want_write(self.mount.0.get()) })?;
        Ok(WriteAccess(&self.mount))
    }
}

/// Writes through a mount are announced as long as it lives.
pub(crate) struct WriteAccess<'a>(&'a Mount);

impl Drop for WriteAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: Goes with `mnt_want_write` in `want_write`.
        unsafe { bindings::mnt_drop_write(self.0 .0.get()) }
    }
}
