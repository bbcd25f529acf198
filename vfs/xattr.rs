// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! C header: [`include/linux/xattr.h`](srctree/include/linux/xattr.h)

use crate::bindings;
use crate::vfs::path::Path;
use kernel::error::to_result;
use kernel::prelude::*;

/// Reads an attribute into `buffer` and tells its bytes.
///
/// # Errors
///
/// `ENODATA` if there is none, `ERANGE` if it is longer than the buffer.
pub(crate) fn get(path: &Path, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: The dentry is live, `name` a string, `buffer` valid for writes.
    let ret = unsafe {
        bindings::vfs_getxattr(
            bindings::no_idmap(),
            path.dentry().as_ptr(),
            name.as_char_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    };
    usize::try_from(ret).map_err(|_| Error::from_errno(i32::try_from(ret).unwrap_or(-5)))
}

/// Sets an attribute. The caller holds no lock of the inode.
///
/// # Errors
///
/// `EROFS`, `ENOSPC` and what else the file system says.
pub(crate) fn set(path: &Path, name: &CStr, value: &[u8]) -> Result {
    let _access = path.want_write()?;
    // SAFETY: The dentry is live, `name` a string, `value` valid for reads.
    to_result(unsafe {
        bindings::vfs_setxattr(
            bindings::no_idmap(),
            path.dentry().as_ptr(),
            name.as_char_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })
}
