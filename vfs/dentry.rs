// SPDX-License-Identifier: GPL-2.0

//! Dentries.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use crate::bindings;
use crate::kcompat::types::ARef;
use crate::kcompat::types::AlwaysRefCounted;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::types::Opaque;

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
    pub(super) fn inode_operations(&self) -> Option<&bindings::inode_operations> {
        let inode = NonNull::new(self.inode_ptr())?;
        // SAFETY: The dentry keeps its inode, whose operations do not change.
        unsafe { inode.as_ref().i_op.as_ref() }
    }

    /// Whether it may have extended attributes.
    pub(super) fn takes_xattrs(&self) -> bool {
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
