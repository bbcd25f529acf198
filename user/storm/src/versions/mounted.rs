// SPDX-License-Identifier: MIT OR Apache-2.0

//! A mounted image, and what is done with it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::mount::{unmount, UnmountFlags};

use super::blocks::BLOCK;
use crate::deadline::within;

/// Seconds for a mount, an unmount or a read, on the reference machine.
pub(super) const SECONDS: u64 = 60;

/// A mounted image.
#[derive(Clone, Debug)]
pub(super) struct Mounted {
    pub(super) image: u8,
    pub(super) version: u8,
    /// The changes of the image when it was mounted.
    pub(super) changes: u64,
    /// Its cache is gone: the daemon was stopped.
    pub(super) dead: bool,
    pub(super) at: PathBuf,
}

/// Unmounts what is mounted at a place.
///
/// # Errors
/// What `umount` says; it takes too long.
pub(super) fn unmounted(at: &Path) -> Result<()> {
    let place = at.to_owned();
    within(&format!("unmount {}", at.display()), SECONDS, move || {
        Ok(unmount(&place, UnmountFlags::empty())?)
    })
}

/// Reads blocks of a file.
///
/// # Errors
/// What `read` says.
pub(super) fn read_blocks(path: &Path, first: u64, blocks: u64) -> Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut data = vec![0; usize::try_from(blocks)? * BLOCK];
    file.read_exact_at(&mut data, first * u64::try_from(BLOCK)?)?;
    Ok(data)
}
