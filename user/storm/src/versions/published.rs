// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a source has under the name of an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// What is published under a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published {
    pub(super) version: u8,
    /// How often it was changed.
    pub(super) changes: u64,
    pub(super) has_manifest: bool,
    /// It had a manifest, which is gone: what it is cannot be proved any more, and a mount may be refused.
    pub(super) lost_manifest: bool,
}

/// Copies a file as a whole under another name, or in place. It gets the modification time `mtime`, if there is one.
///
/// # Errors
/// What the file system says.
pub(super) fn publish(
    from: &Path,
    to: &Path,
    in_place: bool,
    mtime: Option<SystemTime>,
) -> Result<()> {
    if in_place {
        let data = fs::read(from)?;
        let file = fs::File::options().write(true).open(to).context("open")?;
        std::os::unix::fs::FileExt::write_all_at(&file, &data, 0)?;
        file.set_len(u64::try_from(data.len())?)?;
        return Ok(());
    }
    let part = to.with_extension("part");
    fs::copy(from, &part)?;
    if let Some(mtime) = mtime {
        fs::File::options()
            .write(true)
            .open(&part)?
            .set_modified(mtime)?;
    }
    Ok(fs::rename(&part, to)?)
}

/// Where the manifest of an image is.
pub(super) fn manifest_of(source: &Path) -> PathBuf {
    let mut name = source.as_os_str().to_owned();
    name.push(".manifest");
    name.into()
}
