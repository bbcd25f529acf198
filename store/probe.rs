// SPDX-License-Identifier: GPL-2.0

//! What a store must be able to do, tried out at bind.
//!
//! A file system that tells holes wrongly would have zeros read for data that was never fetched, so
//! what it claims is not enough: a file is made, and looked at.

use crate::errno::Errno;
use crate::kcompat::iov::KernelSource;
use crate::store::ext4;
use crate::store::pages::PAGE;
use crate::vfs::cred::Credentials;
use crate::vfs::dir::PinnedDir;
use crate::vfs::page_cache;
use crate::vfs::path::Path;
use crate::vfs::store_file;
use crate::vfs::store_file::Extent;
use crate::vfs::store_file::StoreFile;
use crate::vfs::store_io;
use crate::vfs::store_io::Way;
use crate::vfs::superblock::FsKind;
use core::ops::Range;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// Checks the directory that is to hold a cache, and its file system's functions.
///
/// # Errors
///
/// `EINVAL` on an idmapped mount, `EROFS` on a read-only one, `EOPNOTSUPP` if the file system lacks
/// something or has blocks larger than a page; a line in the log says what.
pub(crate) fn check_path(root: &Path) -> Result {
    if root.is_idmapped() {
        pr_err!("a cache on an idmapped mount is not supported\n");
        return Err(EINVAL);
    }
    if let Some(what) = root.lacks_for_cache() {
        pr_err!("the cache's file system lacks {}\n", what);
        return Err(Errno::EOPNOTSUPP.into());
    }
    let block_size = root.space()?.block_size;
    if root.block_size() > PAGE_SIZE || block_size > PAGE {
        pr_err!("the cache's file system has blocks larger than a page\n");
        return Err(Errno::EOPNOTSUPP.into());
    }
    if block_size == 0 {
        pr_err!("the cache's file system does not tell its block size\n");
        return Err(ERANGE);
    }
    if root.is_read_only() {
        pr_err!("the cache's file system is read-only\n");
        return Err(EROFS);
    }
    Ok(())
}

/// Checks that what is written through the page cache is a hole of its file until it is on the disk: whether
/// the write fails, or the power does.
///
/// # Errors
///
/// `EOPNOTSUPP` if the file system lacks something for that, or is not known; a line in the log says what.
/// `ENOMEM`, `EIO`.
pub(crate) fn check_maps_after_writing(root: &Path) -> Result {
    let lacks = match root.kind() {
        FsKind::Ext4 => {
            let mounted = ext4::Mounted {
                superblock: &root.ext4_device_bytes(ext4::SUPERBLOCK_START)?,
                options: &root.ext4_options()?,
                as_ext4: root.is_of_type(kernel::c_str!("ext4")),
            };
            mounted.lacks_for_unwritten_blocks()
        }
        // XFS makes all new extents unwritten, Btrfs enters extents into the file when they were written;
        // neither has an option about that.
        FsKind::Btrfs | FsKind::Xfs => None,
        FsKind::Other => Some("what is known of ext4, XFS and Btrfs"),
    };
    let Some(what) = lacks else {
        return Ok(());
    };
    pr_err!(
        "fill buffered: the cache's file system may map blocks before their data is written, it lacks {}\n",
        what
    );
    Err(Errno::EOPNOTSUPP.into())
}

/// Checks that unnamed files, direct writes and the search for holes work in the store.
///
/// # Errors
///
/// `EOPNOTSUPP` if one does not, and what the file system says; a line in the log says what.
pub(crate) fn check_store(store: &PinnedDir, cred: &Credentials) -> Result {
    let file = store.create_tmpfile(cred).map_err(|error| {
        pr_err!(
            "the cache's file system has no direct I/O to unnamed files: {:?}\n",
            error
        );
        if error == EINVAL {
            Errno::EOPNOTSUPP.into()
        } else {
            error
        }
    })?;
    write_one_page(&file)
        .inspect_err(|error| pr_err!("a direct write to the store failed: {:?}\n", error))?;
    let kind = store.path().kind();
    let lacks = if kind == FsKind::Ext4 && !file.has_extents()? {
        // It maps a block before its data is written, also for a direct write, which it makes through the
        // page cache; and it does not say if that has failed.
        Some("extents (mkfs.ext4 -O extent)")
    } else if kind != FsKind::Btrfs && page_cache::holds_some(file.file(), &PROBE_DATA_RANGE) {
        // Encrypted files of ext4, or data=journal. The write has returned, and its data is not on the disk:
        // nobody would be told if it does not get there. (Btrfs waits for it, and says so.)
        Some("direct writes: they go through the page cache")
    } else if !tells_holes(&file)? {
        Some("a difference between holes and data")
    } else {
        None
    };
    let Some(what) = lacks else {
        return Ok(());
    };
    pr_err!("the cache's file system lacks {}\n", what);
    Err(Errno::EOPNOTSUPP.into())
}

/// Makes `file` a hole, a page of data in the middle, and a hole.
fn write_one_page(file: &StoreFile) -> Result {
    let page = KVec::from_elem(0xffu8, PAGE_SIZE, GFP_KERNEL)?;
    file.set_size(PROBE_SIZE)?;
    let mut source = KernelSource::new(page);
    match store_io::write(Way::Direct, file.writer(), PROBE_DATA, &mut source.iter())? {
        PAGE_SIZE => Ok(()),
        _ => Err(EIO),
    }
}

/// 64 KiB and its middle: large enough that no file system preallocates all of it.
const PROBE_SIZE: u64 = 16 * PAGE;
const PROBE_DATA: u64 = 8 * PAGE;
const PROBE_DATA_RANGE: Range<u64> = PROBE_DATA..PROBE_DATA + PAGE;

fn tells_holes(file: &StoreFile) -> Result<bool> {
    let file = file.file();
    let before = store_file::extent(file, 0)?;
    let data = store_file::extent(file, PROBE_DATA)?;
    let after = store_file::extent(file, PROBE_DATA + PAGE)?;
    Ok(before == Extent::Hole(Some(PROBE_DATA))
        && data == Extent::Data(PROBE_DATA + PAGE)
        && after == Extent::Hole(None))
}
