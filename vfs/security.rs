// SPDX-License-Identifier: GPL-2.0

//! What security modules are asked.
//!
//! C header: [`include/linux/security.h`](srctree/include/linux/security.h)
//!
//! The functions of the virtual file system ask the hooks that go by inode themselves; those that
//! go by path are their callers' business. All of them are asked for the credentials in force.
//! Without CONFIG_SECURITY nothing is forbidden, and there are no contexts.

use crate::bindings;
use crate::errno::Errno;
use crate::kcompat::str::to_bytes;
use crate::vfs::dentry::Dentry;
use crate::vfs::path::Path;
use kernel::error::to_result;
use kernel::prelude::*;

/// A security context, by the number that the active security module gives it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SecurityId(u32);

impl SecurityId {
    /// The context that is called `context`.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if no active security module has contexts to act in, `EINVAL` and what else the module
    /// says if there is none of this name.
    pub(crate) fn of_context(context: &CStr) -> Result<Self> {
        /// No context: what a module answers for one that it does not know, if that is no error to
        /// it, and what tasks have where no active module knows how to act in one (AppArmor).
        const NONE: u32 = 0;
        let mut own = NONE;
        // SAFETY: A task's own credentials are there as long as it runs; `own` is valid for writes.
        unsafe { bindings::lsm_current_getsecid(&mut own) };
        if own == NONE {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let len = u32::try_from(to_bytes(context).len()).map_err(|_| EINVAL)?;
        let mut id = NONE;
        // SAFETY: `context` is valid for `len` bytes and a NUL, `id` for writes.
        to_result(unsafe { bindings::lsm_secctx_to_secid(context.as_char_ptr(), len, &mut id) })?;
        if id == NONE {
            return Err(EINVAL);
        }
        Ok(SecurityId(id))
    }

    /// The number.
    pub(super) fn as_raw(self) -> u32 {
        self.0
    }
}

/// Whether the directory `dentry` may be made in `parent`.
///
/// # Errors
///
/// `EACCES` and what else a security module says.
pub(super) fn may_make_dir(parent: &Path, dentry: &Dentry, mode: bindings::umode_t) -> Result {
    // SAFETY: Path and dentry are live during the call.
    to_result(unsafe { bindings::lsm_path_mkdir(&parent.as_raw(), dentry.as_ptr(), mode) })
}

/// Whether `victim` may be unlinked from `parent`. Errors as [`may_make_dir`].
pub(super) fn may_unlink(parent: &Path, victim: &Dentry) -> Result {
    // SAFETY: Path and dentry are live during the call.
    to_result(unsafe { bindings::lsm_path_unlink(&parent.as_raw(), victim.as_ptr()) })
}

/// Whether `victim` may be moved from `from` to the name `target` in `to`. Errors as
/// [`may_make_dir`].
pub(super) fn may_rename(from: &Path, victim: &Dentry, to: &Path, target: &Dentry) -> Result {
    // SAFETY: Paths and dentries are live during the call.
    to_result(unsafe {
        bindings::lsm_path_rename(
            &from.as_raw(),
            victim.as_ptr(),
            &to.as_raw(),
            target.as_ptr(),
        )
    })
}

/// Whether the credentials in force may make directories and files in `dir`.
///
/// # Errors
///
/// `EACCES` and what else a security module says; a line in the log says what is forbidden.
pub(crate) fn may_fill(dir: &Path) -> Result {
    let (inode, dentry) = (dir.dentry().inode_ptr(), dir.dentry().as_ptr());
    // SAFETY: A directory's dentry is live and keeps its inode.
    let mkdir = unsafe { bindings::lsm_inode_mkdir(inode, dentry, 0) };
    allowed(mkdir).inspect_err(|error| {
        pr_err!(
            "a security module forbids to make directories: {:?}\n",
            error
        )
    })?;
    // SAFETY: As above.
    let create = unsafe { bindings::lsm_inode_create(inode, dentry, 0) };
    allowed(create)
        .inspect_err(|error| pr_err!("a security module forbids to make files: {:?}\n", error))
}

/// A module that has no opinion forbids nothing.
fn allowed(answer: i32) -> Result {
    match to_result(answer) {
        Err(error) if error == Errno::EOPNOTSUPP.into() => Ok(()),
        answer => answer,
    }
}
