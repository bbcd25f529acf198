// SPDX-License-Identifier: GPL-2.0

//! What a file system is, and how it was mounted.
//!
//! C headers: [`include/uapi/linux/magic.h`](srctree/include/uapi/linux/magic.h),
//! [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

use crate::bindings;
use crate::errno::Errno;
use crate::vfs::path::Path;
use kernel::error::to_result;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// The file systems that are known for when they map blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FsKind {
    Ext4,
    Btrfs,
    Xfs,
    /// Any other.
    Other,
}

impl Path {
    /// What kind of file system it is.
    pub(crate) fn kind(&self) -> FsKind {
        const EXT4: u32 = bindings::EXT4_SUPER_MAGIC;
        const BTRFS: u32 = bindings::BTRFS_SUPER_MAGIC;
        const XFS: u32 = bindings::XFS_SUPER_MAGIC;
        match u32::try_from(self.superblock().s_magic) {
            Ok(EXT4) => FsKind::Ext4,
            Ok(BTRFS) => FsKind::Btrfs,
            Ok(XFS) => FsKind::Xfs,
            _ => FsKind::Other,
        }
    }

    /// Whether the file system shows this among its options, as in `/proc/mounts`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EOVERFLOW` for more options than fit on a page; what the file system says.
    pub(crate) fn has_option(&self, option: &str) -> Result<bool> {
        // SAFETY: A superblock's operations do not change.
        let sop = unsafe { self.superblock().s_op.as_ref() };
        let Some(show) = sop.and_then(|sop| sop.show_options) else {
            return Ok(false);
        };
        let mut text = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
        let mut seq = bindings::seq_file {
            buf: text.as_mut_ptr().cast(),
            size: text.len(),
            ..Default::default()
        };
        // SAFETY: The function writes into the buffer, to `size` at most; the superblock's root is
        // live as long as the mount.
        to_result(unsafe { show(&mut seq, self.superblock().s_root) })?;
        let shown = text.get(..seq.count).ok_or(Errno::EOVERFLOW)?;
        if seq.count == text.len() {
            return Err(Errno::EOVERFLOW.into());
        }
        Ok(shown
            .split(|byte| *byte == b',')
            .any(|shown| shown == option.as_bytes()))
    }
}
