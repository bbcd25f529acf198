// SPDX-License-Identifier: GPL-2.0

//! `S_KERNEL_FILE`: the mark by which whoever uses an inode of the store keeps `cull` and other
//! users away.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! Locking: the inode's lock protects the mark. A name is looked up, or found to be there still, and its inode is
//! marked in one hold of the directory's lock, by those who open it and by those who cull it: so an inode that
//! is marked has not been culled before.

use crate::bindings;
use crate::kcompat::types::ARef;
use crate::vfs::dentry::Dentry;

/// An inode that is marked as in use; the mark goes when this is dropped.
pub(super) struct Mark(ARef<Dentry>);

impl Mark {
    /// Marks the inode of a dentry; `None` if somebody uses it already, or there is none.
    pub(super) fn take(dentry: &Dentry) -> Option<Self> {
        let inode = dentry.inode_ptr();
        if inode.is_null() {
            return None;
        }
        // SAFETY: The dentry is positive and keeps its inode.
        unsafe { bindings::inode_lock(inode) };
        let free = !is_in_use(dentry);
        // SAFETY: The inode's lock is held, which serialises changes of the flags; others read them.
        unsafe { (*inode).i_flags |= bindings::S_KERNEL_FILE_FLAG };
        // SAFETY: Locked above.
        unsafe { bindings::inode_unlock(inode) };
        free.then(|| Mark(dentry.into()))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let inode = self.0.inode_ptr();
        // SAFETY: The dentry was positive when it was marked; a dentry with two references, this
        // one and that of whoever removes it, keeps its inode.
        unsafe { bindings::inode_lock(inode) };
        // SAFETY: As in `take`.
        unsafe { (*inode).i_flags &= !bindings::S_KERNEL_FILE_FLAG };
        // SAFETY: Locked above.
        unsafe { bindings::inode_unlock(inode) };
    }
}

/// Whether the inode of a dentry is marked, as it looks now.
pub(super) fn is_in_use(dentry: &Dentry) -> bool {
    let inode = dentry.inode_ptr();
    if inode.is_null() {
        return false;
    }
    // SAFETY: The dentry is positive and keeps its inode; the flags are one machine word.
    let flags = unsafe { core::ptr::addr_of!((*inode).i_flags).read_volatile() };
    flags & bindings::S_KERNEL_FILE_FLAG != 0
}
