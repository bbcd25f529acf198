// SPDX-License-Identifier: GPL-2.0

//! What a store must be able to do, tried out at bind.
//!
//! A file system that tells holes wrongly would have zeros read for data that was never fetched, so
//! what it claims is not enough: a file is made, and looked at.

use crate::cache::PAGE;
use crate::errno::Errno;
use crate::kcompat::iov::KernelSource;
use crate::vfs::cred::Credentials;
use crate::vfs::dir::PinnedDir;
use crate::vfs::path::Path;
use crate::vfs::store_file;
use crate::vfs::store_file::Extent;
use crate::vfs::store_file::StoreFile;
use crate::vfs::store_io;
use crate::vfs::store_io::Way;
use crate::vfs::superblock::FsKind;
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

/// Checks that the file system never calls a range data, after a loss of power, whose data was not on
/// the disk: data that is filled through the page cache gets there later.
///
/// # Errors
///
/// `EOPNOTSUPP` if it may, or is not known; a line in the log says so.
pub(crate) fn check_order_of_writes(root: &Path) -> Result {
    let ordered = match root.kind() {
        // Its default can be changed for good (tune2fs -o), which is not shown here.
        FsKind::Ext4 => !root.has_option("data=writeback")?,
        // They map a range when its data is written.
        FsKind::Btrfs | FsKind::Xfs => true,
        FsKind::Other => false,
    };
    if ordered {
        return Ok(());
    }
    pr_err!("fill buffered: the cache's file system may map blocks before their data is written\n");
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
    if tells_holes(&file)? {
        return Ok(());
    }
    pr_err!("the cache's file system does not tell holes from data\n");
    Err(Errno::EOPNOTSUPP.into())
}

/// Makes `file` a hole, a page of data in the middle, and a hole.
fn write_one_page(file: &StoreFile) -> Result {
    let page = KVec::from_elem(0xffu8, PAGE_SIZE, GFP_KERNEL)?;
    file.set_size(PROBE_SIZE)?;
    let mut source = KernelSource::new(&page);
    match store_io::write(Way::Direct, file.file(), PROBE_DATA, source.iter())? {
        PAGE_SIZE => Ok(()),
        _ => Err(EIO),
    }
}

/// 64 KiB and its middle: large enough that no file system preallocates all of it.
const PROBE_SIZE: u64 = 16 * PAGE;
const PROBE_DATA: u64 = 8 * PAGE;

fn tells_holes(file: &StoreFile) -> Result<bool> {
    let file = file.file();
    let before = store_file::extent(file, 0)?;
    let data = store_file::extent(file, PROBE_DATA)?;
    let after = store_file::extent(file, PROBE_DATA + PAGE)?;
    Ok(before == Extent::Hole(Some(PROBE_DATA))
        && data == Extent::Data(PROBE_DATA + PAGE)
        && after == Extent::Hole(None))
}
