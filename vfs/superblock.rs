// SPDX-License-Identifier: GPL-2.0

//! What a file system is and can do, how it was mounted, and how full it is.
//!
//! C headers: [`include/uapi/linux/magic.h`](srctree/include/uapi/linux/magic.h),
//! [`include/linux/statfs.h`](srctree/include/linux/statfs.h),
//! [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h),
//! [`include/linux/buffer_head.h`](srctree/include/linux/buffer_head.h)

use crate::bindings;
use crate::errno::Errno;
use crate::kcompat::str::to_bytes;
use crate::vfs::path::Path;
use kernel::error::to_result;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The file systems that are known for when they map blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FsKind {
    Ext4,
    Btrfs,
    Xfs,
    /// Any other.
    Other,
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
    /// The first thing that this directory's file system lacks for a cache, in words.
    pub(crate) fn lacks_for_cache(&self) -> Option<&'static str> {
        let Some(op) = self.dentry().inode_operations() else {
            return Some("an inode");
        };
        let sop = self.super_operations();
        let sop_has = |has: fn(&bindings::super_operations) -> bool| sop.is_some_and(has);
        if op.lookup.is_none() {
            Some("lookups")
        } else if op.mkdir.is_none() {
            Some("mkdir")
        } else if op.tmpfile.is_none() {
            Some("O_TMPFILE")
        } else if !self.dentry().takes_xattrs() {
            Some("extended attributes")
        } else if !sop_has(|sop| sop.statfs.is_some()) {
            Some("statfs")
        } else if !sop_has(|sop| sop.sync_fs.is_some()) {
            Some("sync_fs")
        } else {
            None
        }
    }

    fn super_operations(&self) -> Option<&bindings::super_operations> {
        // SAFETY: The superblock is live; the field does not change.
        let sop = unsafe { (*self.superblock()).s_op };
        // SAFETY: Null, or a table that does not change and lives as long as the superblock.
        unsafe { sop.as_ref() }
    }

    /// Bytes of a block of the file system.
    pub(crate) fn block_size(&self) -> usize {
        // SAFETY: The superblock is live; the field is a number.
        unsafe { (*self.superblock()).s_blocksize }
    }

    /// The largest file, in bytes.
    pub(crate) fn max_file_size(&self) -> u64 {
        // SAFETY: The superblock is live; the field is a number.
        let max = unsafe { (*self.superblock()).s_maxbytes };
        u64::try_from(max).unwrap_or(0)
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
        unsafe { bindings::sync_filesystem_locked((*self.dentry().as_ptr()).d_sb, &mut result) };
        to_result(result)
    }

    /// What kind of file system it is.
    pub(crate) fn kind(&self) -> FsKind {
        const EXT4: u32 = bindings::EXT4_SUPER_MAGIC;
        const BTRFS: u32 = bindings::BTRFS_SUPER_MAGIC;
        const XFS: u32 = bindings::XFS_SUPER_MAGIC;
        // SAFETY: The superblock is live; the field is a number.
        let magic = unsafe { (*self.superblock()).s_magic };
        match u32::try_from(magic) {
            Ok(EXT4) => FsKind::Ext4,
            Ok(BTRFS) => FsKind::Btrfs,
            Ok(XFS) => FsKind::Xfs,
            _ => FsKind::Other,
        }
    }

    /// Whether it was mounted as a file system of this type, as in `/proc/mounts`.
    pub(crate) fn is_of_type(&self, name: &CStr) -> bool {
        // SAFETY: The superblock is live; its type does not change, nor does that one's name.
        let name_of_type = unsafe { (*(*self.superblock()).s_type).name };
        // SAFETY: A string that lives as long as the type, which the superblock keeps.
        let its = unsafe { CStr::from_char_ptr(name_of_type) };
        to_bytes(its) == to_bytes(name)
    }

    fn must_be_ext4(&self) -> Result {
        if self.kind() == FsKind::Ext4 {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// What an ext4 shows as its options, as in `/proc/mounts`: separated by commas. Other file systems may ask for the
    /// file through which they are shown, and there is none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is no ext4, `ENOMEM`; `EOVERFLOW` for more options than fit on a page; what the file system says.
    pub(crate) fn ext4_options(&self) -> Result<KVec<u8>> {
        self.must_be_ext4()?;
        let sop = self.super_operations();
        let Some(show) = sop.and_then(|sop| sop.show_options) else {
            return Ok(KVec::new());
        };
        let mut text = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
        let mut seq = bindings::seq_file {
            buf: text.as_mut_ptr().cast(),
            size: text.len(),
            ..Default::default()
        };
        // SAFETY: The function writes into the buffer, to `size` at most; the superblock's root is
        // live as long as the mount.
        to_result(unsafe { show(&mut seq, (*self.superblock()).s_root) })?;
        if seq.count >= text.len() {
            return Err(Errno::EOVERFLOW.into());
        }
        let mut shown = KVec::new();
        shown.extend_from_slice(text.get(..seq.count).unwrap_or_default(), GFP_KERNEL)?;
        Ok(shown)
    }

    /// `SIZE` bytes of the block device of an ext4 from `start` on, within one block. Its superblock is in memory.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is no ext4, `EIO` if it cannot be read.
    pub(crate) fn ext4_device_bytes<const SIZE: usize>(&self, start: usize) -> Result<[u8; SIZE]> {
        self.must_be_ext4()?;
        let block_size = self.block_size();
        let (block, offset) = (start / block_size, start % block_size);
        let mut copy = [0; SIZE];
        if offset + copy.len() > block_size {
            return Err(EIO);
        }
        // SAFETY: The superblock is live, and an ext4 has a block device.
        let buffer = unsafe { bindings::sb_bread(self.superblock(), block as u64) };
        if buffer.is_null() {
            return Err(EIO);
        }
        // SAFETY: A buffer that was read has `block_size` bytes. ext4 may change some meanwhile; those that
        // are looked at do not change while it is mounted.
        unsafe {
            let data = bindings::buffer_data(buffer).cast::<u8>().add(offset);
            core::ptr::copy_nonoverlapping(data, copy.as_mut_ptr(), copy.len());
        }
        // SAFETY: The reference is the one from above.
        unsafe { bindings::brelse(buffer) };
        Ok(copy)
    }
}
