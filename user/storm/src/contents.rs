// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an image must contain: every path below a directory, with the SHA-256
//! of each part of each file.
//!
//! A large file is cut into parts, so that several readers can be in it at
//! once and in any order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

/// Bytes in a part of a file; the last part of a file may be shorter.
pub(crate) const PART_BYTES: u64 = 4 << 20;

/// What stands at one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Symlink(String),
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// SHA-256 of each [`PART_BYTES`] of it, in hexadecimal.
        parts: Vec<String>,
    },
}

/// All paths below a directory, relative to it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// Path to entry; the directory itself is not listed.
    pub(crate) entries: BTreeMap<String, Entry>,
}

impl Contents {
    /// Lists `root` and hashes every file in it.
    ///
    /// # Errors
    /// When something cannot be read, is no file, directory or link, or has a
    /// name that is not UTF-8.
    pub(crate) fn of(root: &Path) -> Result<Self> {
        Self::walk(root, |path, size| {
            let file = File::open(path)?;
            let mut parts = Vec::new();
            let mut offset = 0;
            while offset < size {
                let length = PART_BYTES.min(size - offset);
                parts.push(hash_range(&file, offset, length, 1 << 20, &mut |_| ())?);
                offset += length;
            }
            Ok(parts)
        })
    }

    /// Compares what is listed below `root` with these contents: paths, kinds,
    /// sizes and link targets, not the bytes of files.
    ///
    /// # Errors
    /// When the listing fails or differs; the message names the first difference.
    pub(crate) fn check_listing(&self, root: &Path) -> Result<()> {
        let found = Self::walk(root, |_, _| Ok(Vec::new()))?;
        for (path, expected) in &self.entries {
            let entry = found
                .entries
                .get(path)
                .with_context(|| format!("{path} is missing"))?;
            let same = match (expected, entry) {
                (Entry::File { size: a, .. }, Entry::File { size: b, .. }) => a == b,
                (a, b) => a == b,
            };
            ensure!(same, "{path}: expected {expected:?}, found {entry:?}");
        }
        for path in found.entries.keys() {
            ensure!(
                self.entries.contains_key(path),
                "{path} is not in the source"
            );
        }
        Ok(())
    }

    fn walk(root: &Path, hash: impl Fn(&Path, u64) -> Result<Vec<String>>) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for item in WalkDir::new(root).min_depth(1) {
            let item = item?;
            let path = item
                .path()
                .strip_prefix(root)?
                .to_str()
                .with_context(|| format!("{:?} is not UTF-8", item.path()))?
                .to_owned();
            let kind = item.file_type();
            let entry = if kind.is_dir() {
                Entry::Directory
            } else if kind.is_symlink() {
                let target = fs::read_link(item.path())?;
                Entry::Symlink(target.to_str().context("link target")?.to_owned())
            } else if kind.is_file() {
                let size = item.metadata()?.len();
                let parts = hash(item.path(), size).with_context(|| format!("reading {path}"))?;
                Entry::File { size, parts }
            } else {
                bail!("{path}: neither file, directory nor link");
            };
            entries.insert(path, entry);
        }
        Ok(Self { entries })
    }

    /// Reads the contents that [`Contents::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read or does not hold contents.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let mut text = String::new();
        BufReader::new(file).read_to_string(&mut text)?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no contents", path.display()))
    }

    /// Writes the contents as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// The number of files, and their bytes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.entries.values().fold((0, 0), |(n, bytes), e| match e {
            Entry::File { size, .. } => (n + 1, bytes + size),
            _ => (n, bytes),
        })
    }
}

/// Hashes `length` bytes of `file` from `offset` in reads of `chunk` bytes and
/// reports the bytes of each read to `progress`.
///
/// # Errors
/// When a read fails, or the file ends too early.
pub(crate) fn hash_range(
    file: &File,
    offset: u64,
    length: u64,
    chunk: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; chunk];
    let mut at = offset;
    let end = offset + length;
    while at < end {
        let want = usize::try_from(end - at).map_or(chunk, |rest| rest.min(chunk));
        let got = file
            .read_at(&mut buffer[..want], at)
            .with_context(|| format!("read of {want} bytes at {at}"))?;
        ensure!(got > 0, "end of file at {at}, expected {end}");
        hasher.update(&buffer[..got]);
        let got = u64::try_from(got)?;
        at += got;
        progress(got);
    }
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/empty"), b"").unwrap();
        let two_parts = usize::try_from(PART_BYTES).unwrap() + 1;
        fs::write(dir.path().join("big"), vec![7; two_parts]).unwrap();
        std::os::unix::fs::symlink("d/empty", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn parts_cover_the_file() {
        let dir = tree();
        let contents = Contents::of(dir.path()).unwrap();
        let Entry::File { size, parts } = &contents.entries["big"] else {
            panic!("big is no file");
        };
        assert_eq!((*size, parts.len()), (PART_BYTES + 1, 2));
        assert_eq!(parts[1], hex::encode(Sha256::digest([7])));
        assert_eq!(contents.totals(), (2, PART_BYTES + 1));
    }

    #[test]
    fn survives_saving() {
        let dir = tree();
        let contents = Contents::of(dir.path()).unwrap();
        let out = tempfile::NamedTempFile::new().unwrap();
        contents.save(out.path()).unwrap();
        assert_eq!(Contents::load(out.path()).unwrap(), contents);
    }

    #[test]
    fn listing_shows_what_differs() {
        let dir = tree();
        let contents = Contents::of(dir.path()).unwrap();
        contents.check_listing(dir.path()).unwrap();
        fs::write(dir.path().join("more"), b"x").unwrap();
        let more = contents.check_listing(dir.path()).unwrap_err();
        assert!(more.to_string().contains("more"), "{more}");
        fs::remove_file(dir.path().join("more")).unwrap();
        fs::write(dir.path().join("d/empty"), b"x").unwrap();
        let grown = contents.check_listing(dir.path()).unwrap_err();
        assert!(grown.to_string().contains("d/empty"), "{grown}");
    }
}
