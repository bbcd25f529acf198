// SPDX-License-Identifier: GPL-2.0

//! Moving an entry from one directory to another.
//!
//! C headers: [`include/linux/namei.h`](srctree/include/linux/namei.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! Since 6.19 `start_renaming_dentry` locks, looks at the entry and looks the new name up; 7.1 does not export
//! `lock_rename` any more, with which that is done in steps before.

use crate::bindings;
use crate::errno::Errno;
use crate::vfs::dentry::Dentry;
use crate::vfs::dir::is_name_in;
use crate::vfs::path::Path;
use crate::vfs::security;
use kernel::error::to_result;
use kernel::prelude::*;

/// The locks of two directories, an entry of the first, and its name to be in the second, which is free.
pub(super) struct RenameLock<'a> {
    from: &'a Path,
    to: &'a Path,
    victim: &'a Dentry,
    held: Held<'a>,
}

impl<'a> RenameLock<'a> {
    /// # Errors
    ///
    /// `EXDEV` if the directories are on different file systems, `ENOTDIR`, `ESTALE` if `victim` is no longer in the
    /// first, `EBUSY` if one of `victim` and the second directory contains the other or something is mounted on
    /// `victim`, `EEXIST` if `name` is taken.
    pub(super) fn take(
        from: &'a Path,
        victim: &'a Dentry,
        to: &'a Path,
        name: &[u8],
    ) -> Result<Self> {
        if !from.is_on_file_system_of(to) {
            return Err(Errno::EXDEV.into());
        }
        if !from.dentry().is_dir() || !to.dentry().is_dir() {
            return Err(ENOTDIR);
        }
        let held = Held::take(from.dentry(), victim, to.dentry(), name)?;
        // SAFETY: The victim is live.
        if unsafe { bindings::d_mountpoint(victim.as_ptr()) } {
            return Err(EBUSY);
        }
        if !held.target().is_negative() {
            return Err(EEXIST);
        }
        Ok(RenameLock {
            from,
            to,
            victim,
            held,
        })
    }

    /// Moves the entry.
    ///
    /// # Errors
    ///
    /// What a security module or the file system says.
    pub(super) fn rename(&self) -> Result {
        let target = self.held.target();
        security::may_rename(self.from, self.victim, self.to, target)?;
        // SAFETY: Both directories are locked for a rename, and the checks that one asks for were made in `take`.
        to_result(unsafe {
            bindings::rename(
                self.from.dentry().as_ptr(),
                self.victim.as_ptr(),
                self.to.dentry().as_ptr(),
                target.as_ptr(),
            )
        })
    }
}

#[cfg(ondemand_start_renaming)]
use by_kernel::Held;
#[cfg(not(ondemand_start_renaming))]
use in_steps::Held;

#[cfg(ondemand_start_renaming)]
mod by_kernel {
    use super::*;
    use core::marker::PhantomData;

    /// What `start_renaming_dentry` has locked, and references to what it has found.
    pub(super) struct Held<'a>(bindings::renamedata, PhantomData<&'a Dentry>);

    impl<'a> Held<'a> {
        pub(super) fn take(
            from: &'a Dentry,
            victim: &'a Dentry,
            to: &'a Dentry,
            name: &[u8],
        ) -> Result<Self> {
            let len = i32::try_from(name.len()).map_err(|_| Errno::ENAMETOOLONG)?;
            let mut rename = bindings::renamedata {
                // SAFETY: The map is static.
                mnt_idmap: unsafe { bindings::no_idmap() },
                old_parent: from.as_ptr(),
                new_parent: to.as_ptr(),
                ..Default::default()
            };
            // SAFETY: All three are live, the directories are on one file system, `name` is valid for `len` bytes.
            let result = to_result(unsafe {
                bindings::start_renaming(&mut rename, victim.as_ptr(), name.as_ptr().cast(), len)
            });
            match result {
                Ok(()) => Ok(Held(rename, PhantomData)),
                // It says no more. Nothing is locked: what this finds may be over, and only chooses the error.
                // SAFETY: As above; what is compared is not followed.
                Err(error) if error == EINVAL && !unsafe { is_name_in(victim, from) } => {
                    Err(Errno::ESTALE.into())
                }
                Err(error)
                    if error == EINVAL || error.to_errno() == -(bindings::ENOTEMPTY as i32) =>
                {
                    Err(EBUSY)
                }
                Err(error) => Err(error),
            }
        }

        /// What is at the new name.
        pub(super) fn target(&self) -> &Dentry {
            // SAFETY: There is a reference to it as long as `self` exists.
            unsafe { Dentry::from_raw(self.0.new_dentry) }
        }
    }

    impl Drop for Held<'_> {
        fn drop(&mut self) {
            // SAFETY: Begun in `take`.
            unsafe { bindings::end_renaming(&mut self.0) }
        }
    }
}

#[cfg(not(ondemand_start_renaming))]
mod in_steps {
    use super::*;
    use crate::kcompat::types::ARef;
    use crate::vfs::dir::lookup_locked;

    /// Two locked directories, and what was found in the second.
    pub(super) struct Held<'a> {
        target: ARef<Dentry>,
        _locked: Locked<'a>,
    }

    struct Locked<'a> {
        from: &'a Dentry,
        to: &'a Dentry,
    }

    impl<'a> Held<'a> {
        pub(super) fn take(
            from: &'a Dentry,
            victim: &'a Dentry,
            to: &'a Dentry,
            name: &[u8],
        ) -> Result<Self> {
            // The one of the two that contains the other, if it does, or what contains it.
            // SAFETY: Both are live directories of one file system.
            let trap = kernel::error::from_err_ptr(unsafe {
                bindings::lock_rename(to.as_ptr(), from.as_ptr())
            })?;
            let _locked = Locked { from, to };
            // SAFETY: The directory is locked.
            if !unsafe { is_name_in(victim, from) } {
                return Err(Errno::ESTALE.into());
            }
            if victim.as_ptr() == trap {
                return Err(EBUSY);
            }
            // SAFETY: The directory is locked.
            let target = unsafe { lookup_locked(to, name) }?;
            if target.as_ptr() == trap {
                return Err(EBUSY);
            }
            Ok(Held { target, _locked })
        }

        /// What is at the new name.
        pub(super) fn target(&self) -> &Dentry {
            &self.target
        }
    }

    impl Drop for Locked<'_> {
        fn drop(&mut self) {
            // SAFETY: Locked in `take`.
            unsafe { bindings::unlock_rename(self.to.as_ptr(), self.from.as_ptr()) };
        }
    }
}
