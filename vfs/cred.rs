// SPDX-License-Identifier: GPL-2.0

//! Acting as the kernel instead of as the task that happens to call, and without re-entering the
//! file system for memory.
//!
//! C headers: [`include/linux/cred.h`](srctree/include/linux/cred.h),
//! [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use crate::vfs::path::Path;
use crate::vfs::security::SecurityId;
use core::ptr::NonNull;
use kernel::prelude::*;

/// Credentials that the store is accessed with.
///
/// # Invariants
///
/// The pointer is a `struct cred` of which this value owns a reference.
pub(crate) struct Credentials(NonNull<bindings::cred>);

// SAFETY: Credentials do not change once they are in use; their count is atomic.
unsafe impl Send for Credentials {}
// SAFETY: As above.
unsafe impl Sync for Credentials {}

impl Credentials {
    /// Those of the current task as the kernel uses them, in the security context `context` if
    /// there is one, else in that of the task.
    ///
    /// # Errors
    ///
    /// What the security module says, `ENOMEM`.
    pub(crate) fn of_kernel(context: Option<SecurityId>) -> Result<Self> {
        // SAFETY: The current task exists.
        let cred = unsafe { bindings::prepare_kernel_cred(bindings::get_current()) };
        // INVARIANT: The new credentials come with one reference.
        let cred = NonNull::new(cred).map(Credentials).ok_or(ENOMEM)?;
        if let Some(context) = context {
            // SAFETY: The credentials are not in use yet.
            kernel::error::to_result(unsafe {
                bindings::set_security_override(cred.0.as_ptr(), context.as_raw())
            })?;
        }
        Ok(cred)
    }

    /// The same, creating files in the security context of those in `dir`.
    ///
    /// # Errors
    ///
    /// What the security module says, `ENOMEM`.
    pub(crate) fn creating_files_as(&self, dir: &Path) -> Result<Self> {
        let new = {
            // SAFETY: Copies the credentials that are in force, ours.
            let copy = self.run(|| unsafe { bindings::prepare_creds() });
            Credentials(NonNull::new(copy).ok_or(ENOMEM)?)
        };
        // SAFETY: `new` is not in use yet, and the inode lives as long as its path.
        kernel::error::to_result(unsafe {
            bindings::set_create_files_as(new.0.as_ptr(), dir.dentry().inode_ptr())
        })?;
        Ok(new)
    }

    /// The C structure.
    pub(crate) fn as_ptr(&self) -> *const bindings::cred {
        self.0.as_ptr()
    }

    /// Does `work` with these in force for the current task, and allocating memory without going
    /// into file systems. Such works may contain one another.
    pub(crate) fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        // SAFETY: The credentials live as long as `self`, and are in force until `work` returns: the
        // kernel's panics do not unwind.
        let saved = unsafe { bindings::override_creds(self.as_ptr()) };
        // SAFETY: Undone below.
        let nofs = unsafe { bindings::memalloc_nofs_save() };
        let result = work();
        // SAFETY: Goes with the save above; what `work` began, it has ended.
        unsafe { bindings::memalloc_nofs_restore(nofs) };
        // SAFETY: These were in force before, and `work` has left ours in force.
        unsafe { bindings::revert_creds(saved) };
        result
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        // SAFETY: The reference is owned by the type invariant.
        unsafe { bindings::put_cred(self.as_ptr()) }
    }
}

/// Whether the current task may administer the system: CAP_SYS_ADMIN in the initial namespace.
pub(crate) fn is_admin() -> bool {
    // SAFETY: Looks at the current task.
    unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as i32) }
}
