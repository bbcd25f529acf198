// SPDX-License-Identifier: GPL-2.0

//! Mounts, dentries and paths, and what a file system can do.
//!
//! C headers: [`include/linux/path.h`](srctree/include/linux/path.h),
//! [`include/linux/dcache.h`](srctree/include/linux/dcache.h),
//! [`include/linux/mount.h`](srctree/include/linux/mount.h)

use crate::bindings;
use crate::kcompat::str::to_bytes;
use crate::kcompat::types::ARef;
use crate::kcompat::types::AlwaysRefCounted;
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

/// A name in a directory, with the inode behind it if there is one.
#[repr(transparent)]
pub(crate) struct Dentry(Opaque<bindings::dentry>);

// SAFETY: A dentry may be used from any thread.
unsafe impl Send for Dentry {}
// SAFETY: As above; what is read without a lock is read by functions that allow it.
unsafe impl Sync for Dentry {}

// SAFETY: `dget` and `dput` count references.
unsafe impl AlwaysRefCounted for Dentry {
    fn inc_ref(&self) {
        // SAFETY: The existence of `self` shows that the count is above zero.
        unsafe { bindings::dget(self.as_ptr()) };
    }

    unsafe fn dec_ref(dentry: NonNull<Self>) {
        // SAFETY: The caller gives away a reference that it owns.
        unsafe { bindings::dput(dentry.cast().as_ptr()) }
    }
}

impl Dentry {
    /// # Safety
    ///
    /// `dentry` is an error pointer or a live dentry with a reference that the caller gives away.
    pub(crate) unsafe fn from_err_ptr(dentry: *mut bindings::dentry) -> Result<ARef<Self>> {
        let dentry = kernel::error::from_err_ptr(dentry)?;
        let dentry = NonNull::new(dentry.cast()).ok_or(ENOENT)?;
        // SAFETY: The caller gives its reference away.
        Ok(unsafe { ARef::from_raw(dentry) })
    }

    /// # Safety
    ///
    /// `dentry` is live for `'a`.
    pub(crate) unsafe fn from_raw<'a>(dentry: *mut bindings::dentry) -> &'a Self {
        // SAFETY: The type is transparent, the rest is promised by the caller.
        unsafe { &*dentry.cast() }
    }

    /// The C structure.
    pub(crate) fn as_ptr(&self) -> *mut bindings::dentry {
        self.0.get()
    }

    /// The inode, null if the name names nothing.
    pub(crate) fn inode_ptr(&self) -> *mut bindings::inode {
        // SAFETY: The dentry is live.
        unsafe { bindings::d_inode(self.as_ptr()) }
    }

    /// Whether the name names nothing.
    pub(crate) fn is_negative(&self) -> bool {
        // SAFETY: The dentry is live.
        unsafe { bindings::d_is_negative(self.as_ptr()) }
    }

    /// Whether it is a regular file.
    pub(crate) fn is_regular(&self) -> bool {
        // SAFETY: The dentry is live.
        unsafe { bindings::d_is_reg(self.as_ptr()) }
    }

    /// Whether it is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        // SAFETY: The dentry is live.
        unsafe { bindings::d_is_dir(self.as_ptr()) }
    }

    /// The operations of its inode; `None` if the name names nothing.
    fn inode_operations(&self) -> Option<&bindings::inode_operations> {
        let inode = NonNull::new(self.inode_ptr())?;
        // SAFETY: The dentry keeps its inode, whose operations do not change.
        unsafe { inode.as_ref().i_op.as_ref() }
    }

    fn takes_xattrs(&self) -> bool {
        let Some(inode) = NonNull::new(self.inode_ptr()) else {
            return false;
        };
        // SAFETY: The dentry keeps its inode; the flags are set when the inode is made.
        let flags = unsafe { inode.as_ref().i_opflags };
        u32::from(flags) & bindings::IOP_XATTR != 0
    }

    /// Whether names in this directory that differ in their case alone are one, by its own choice: of file systems
    /// in which they are so everywhere this says nothing.
    pub(super) fn ignores_case(&self) -> bool {
        let Some(inode) = NonNull::new(self.inode_ptr()) else {
            return false;
        };
        // SAFETY: The dentry keeps its inode; the flag of a directory changes only while it is empty.
        let flags = unsafe { core::ptr::addr_of!((*inode.as_ptr()).i_flags).read_volatile() };
        flags & bindings::S_CASEFOLD != 0
    }

    /// Whether it is a directory that a cache can keep directories and files in.
    pub(crate) fn holds_cache_entries(&self) -> bool {
        // SAFETY: The dentry is live.
        let looks_up = unsafe { bindings::d_can_lookup(self.as_ptr()) };
        looks_up
            && self.takes_xattrs()
            && self.inode_operations().is_some_and(|op| {
                op.lookup.is_some()
                    && op.mkdir.is_some()
                    && op.rename.is_some()
                    && op.rmdir.is_some()
                    && op.unlink.is_some()
            })
    }
}

/// A dentry, and the mount through which it was reached.
pub(crate) struct Path {
    mount: ARef<Mount>,
    dentry: ARef<Dentry>,
}

/// Space of a file system, in units.
#[derive(Clone, Copy)]
pub(crate) struct Space {
    /// Bytes of a block.
    pub(crate) block_size: u64,
    /// Blocks in all.
    pub(crate) blocks: u64,
    /// Blocks that are to be had without privilege.
    pub(crate) blocks_available: u64,
    /// Inodes in all.
    pub(crate) files: u64,
    /// Inodes that are to be had.
    pub(crate) files_free: u64,
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

    pub(super) fn superblock(&self) -> &bindings::super_block {
        // SAFETY: A dentry's superblock is set for good, and lives as long as the mount.
        unsafe { &*(*self.dentry.as_ptr()).d_sb }
    }

    /// Whether the file system is mounted read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: The superblock is live.
        let superblock = unsafe { bindings::sb_rdonly(self.superblock()) };
        // SAFETY: The mount is live.
        superblock || unsafe { bindings::__mnt_is_readonly(self.mount.0.get()) }
    }

    /// The first thing that this directory's file system lacks for a cache, in words.
    pub(crate) fn lacks_for_cache(&self) -> Option<&'static str> {
        let Some(op) = self.dentry.inode_operations() else {
            return Some("an inode");
        };
        // SAFETY: A superblock's operations do not change.
        let sop = unsafe { self.superblock().s_op.as_ref() };
        let sop_has = |has: fn(&bindings::super_operations) -> bool| sop.is_some_and(has);
        if op.lookup.is_none() {
            Some("lookups")
        } else if op.mkdir.is_none() {
            Some("mkdir")
        } else if op.tmpfile.is_none() {
            Some("O_TMPFILE")
        } else if !self.dentry.takes_xattrs() {
            Some("extended attributes")
        } else if !sop_has(|sop| sop.statfs.is_some()) {
            Some("statfs")
        } else if !sop_has(|sop| sop.sync_fs.is_some()) {
            Some("sync_fs")
        } else {
            None
        }
    }

    /// Bytes of a block of the file system.
    pub(crate) fn block_size(&self) -> usize {
        self.superblock().s_blocksize
    }

    /// The largest file, in bytes.
    pub(crate) fn max_file_size(&self) -> u64 {
        u64::try_from(self.superblock().s_maxbytes).unwrap_or(0)
    }

    /// Asks the file system how full it is.
    ///
    /// # Errors
    ///
    /// Those of `statfs(2)`.
    pub(crate) fn space(&self) -> Result<Space> {
        let stats = Opaque::<bindings::kstatfs>::uninit();
        // SAFETY: The path is live during the call and `stats` is valid for writes.
        to_result(unsafe { bindings::vfs_statfs(&self.as_raw(), stats.get().cast()) })?;
        // SAFETY: The function clears and fills all of it.
        let stats = unsafe { &*stats.get() };
        Ok(Space {
            block_size: u64::try_from(stats.f_bsize).map_err(|_| ERANGE)?,
            blocks: stats.f_blocks,
            blocks_available: stats.f_bavail,
            files: stats.f_files,
            files_free: stats.f_ffree,
        })
    }

    /// Writes everything of the file system that is only in memory to its disk.
    ///
    /// # Errors
    ///
    /// `EIO` and what else the file system says.
    pub(crate) fn sync(&self) -> Result {
        let mut result = 0;
        // SAFETY: The superblock is live and `result` is valid for writes.
        unsafe { bindings::sync_filesystem_locked((*self.dentry.as_ptr()).d_sb, &mut result) };
        to_result(result)
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

/// Whether a misc device of this name is registered, as sysfs shows it. Where sysfs is not mounted
/// on `/sys` the answer is no.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn misc_device_exists(name: &CStr) -> Result<bool> {
    let mut entry = KVec::new();
    for part in [b"/sys/class/misc/", to_bytes(name), b"\0"] {
        entry.extend_from_slice(part, GFP_KERNEL)?;
    }
    let mut path = bindings::path::default();
    // SAFETY: `entry` is a string and `path` is valid for writes.
    if unsafe { bindings::kern_path(entry.as_ptr().cast(), 0, &mut path) } != 0 {
        return Ok(false);
    }
    // SAFETY: On success the path comes with references.
    unsafe { bindings::path_put(&path) };
    Ok(true)
}
