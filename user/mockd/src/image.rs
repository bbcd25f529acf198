// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is served: images in memory, and the directory that they come from.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::BLOCK_SIZE;

/// Bytes at an address that direct I/O takes, padded with zeros to whole blocks.
#[derive(Debug)]
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// A copy of `bytes`.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let len = bytes.len().next_multiple_of(BLOCK_SIZE);
        let mut room = vec![0; len + BLOCK_SIZE];
        let start = room.as_ptr().align_offset(BLOCK_SIZE);
        room[start..start + bytes.len()].copy_from_slice(bytes);
        Aligned {
            bytes: room,
            start,
            len,
        }
    }

    /// The bytes and their padding.
    #[must_use]
    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// The same, to read into.
    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// What the daemon serves: an image, or a blob of one.
#[derive(Debug)]
pub struct Image {
    /// Its name, which is its cookie key.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    bytes: Aligned,
}

impl Image {
    /// One that is only bytes.
    #[must_use]
    pub fn new(name: impl Into<String>, bytes: &[u8]) -> Arc<Self> {
        Arc::new(Image {
            name: name.into(),
            size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            bytes: Aligned::new(bytes),
        })
    }

    /// The same bytes under another name.
    #[must_use]
    pub fn named(&self, name: impl Into<String>) -> Arc<Self> {
        Image::new(name, self.bytes.get())
    }

    /// All of it, in whole blocks.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// The part of a range that the image has, in whole blocks; `off` is a multiple of the block
    /// size.
    #[must_use]
    pub fn range(&self, off: u64, len: u64) -> &[u8] {
        let all = self.bytes.get();
        let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(all.len());
        let end = clamp(off.saturating_add(len).next_multiple_of(4096));
        &all[clamp(off)..end]
    }

    /// Where in the image this block of data lies.
    ///
    /// # Errors
    ///
    /// It is nowhere, as it would be with compression.
    pub fn find(&self, block: &[u8]) -> Result<u64> {
        let at = self
            .bytes()
            .chunks(BLOCK_SIZE)
            .position(|chunk| chunk == block)
            .context("the image does not hold this block")?;
        Ok(u64::try_from(at * BLOCK_SIZE)?)
    }
}

/// A directory of images; each is read when it is asked for first, and kept.
#[derive(Debug)]
pub struct Directory {
    dir: PathBuf,
    known: Mutex<BTreeMap<Vec<u8>, Arc<Image>>>,
}

impl Directory {
    /// The images in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Directory {
            dir: dir.into(),
            known: Mutex::default(),
        }
    }

    /// The image of this cookie key: the regular file of that name, which holds no `/`.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Image>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = known.get(key) {
            return Some(Arc::clone(image));
        }
        // What cannot be read now, for want of a descriptor, may be later.
        let image = load(&self.dir, key)?;
        known.insert(key.to_vec(), Arc::clone(&image));
        Some(image)
    }
}

fn load(dir: &Path, key: &[u8]) -> Option<Arc<Image>> {
    if key.contains(&b'/') || key.contains(&0) {
        return None;
    }
    let path = dir.join(OsStr::from_bytes(key));
    let bytes = path.is_file().then(|| fs::read(path))?.ok()?;
    Some(Image::new(String::from_utf8_lossy(key), &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_whole_blocks_of_what_is_there() {
        let image = Image::new("i", &[7; 5000]);
        assert_eq!((image.size, image.bytes().len()), (5000, 8192));
        assert_eq!(image.range(4096, 4096).len(), 4096);
        assert_eq!(image.range(4096, u64::MAX - 8192), image.range(4096, 1));
        assert_eq!(image.range(4096, 1)[..904], [7; 904]);
        assert_eq!(image.range(4096, 1)[904..], [0; 4096 - 904]);
        assert!(image.range(8192, 4096).is_empty());
        assert_eq!(image.bytes().as_ptr().align_offset(BLOCK_SIZE), 0);
    }

    #[test]
    fn names_stay_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "x").unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        let images = Directory::new(dir.path());
        assert_eq!(images.get(b"a").unwrap().size, 1);
        for key in [&b"b"[..], b"..", b"", b"b/../a", b"a\0", b"c"] {
            assert!(images.get(key).is_none(), "{key:?}");
        }
    }
}
