// SPDX-License-Identifier: MIT OR Apache-2.0

//! Small EROFS images whose every byte is known.
//!
//! C header: `fs/erofs/erofs_fs.h`, through `mkfs.erofs`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::BLOCK_SIZE;

/// The name of the file that every image holds.
pub const FILE: &str = "data";

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

/// The images that the tests use, and the contents of the file in each.
///
/// They are made once, by the runner, and read again by each test.
#[derive(Debug)]
pub struct Images {
    dir: PathBuf,
}

/// How one image is made.
struct Recipe {
    name: &'static str,
    /// Bytes in its file.
    len: usize,
    seed: u64,
    /// Of how many bytes the first is repeated: 1 is data that cannot be compressed.
    run: usize,
    arguments: &'static [&'static str],
}

const RECIPES: [Recipe; 5] = [
    Recipe {
        name: "plain",
        len: 1 << 20,
        seed: 1,
        run: 1,
        arguments: &[],
    },
    // As large as plain, with other contents.
    Recipe {
        name: "twin",
        len: 1 << 20,
        seed: 2,
        run: 1,
        arguments: &[],
    },
    Recipe {
        name: "small",
        len: 16 << 10,
        seed: 3,
        run: 1,
        arguments: &[],
    },
    Recipe {
        name: "lz4",
        len: 4 << 20,
        seed: 4,
        run: 16,
        arguments: &["-zlz4hc", "-C65536"],
    },
    Recipe {
        name: "chunked",
        len: 1 << 20,
        seed: 5,
        run: 1,
        arguments: &["--chunksize=65536"],
    },
];

/// The name of the blob that the image `chunked` keeps its data in.
pub const BLOB: &str = "blob";

impl Images {
    /// Images that were made in `dir` by [`Images::make`].
    #[must_use]
    pub fn in_directory(dir: &Path) -> Self {
        Images { dir: dir.into() }
    }

    /// Makes all images in `dir`.
    ///
    /// # Errors
    ///
    /// `mkfs.erofs` is missing or fails; the directory cannot be written.
    pub fn make(dir: &Path) -> Result<Self> {
        for recipe in &RECIPES {
            let tree = dir.join(format!("{}.d", recipe.name));
            fs::create_dir_all(&tree)?;
            fs::write(
                tree.join(FILE),
                contents(recipe.seed, recipe.len, recipe.run),
            )?;
            let mut mkfs = Command::new("mkfs.erofs");
            mkfs.args([
                "--quiet",
                "-T0",
                "-U",
                "00000000-0000-4000-8000-000000000000",
            ]);
            mkfs.args(recipe.arguments);
            if recipe.name == "chunked" {
                let blob = dir.join(BLOB);
                fs::write(&blob, [])?;
                mkfs.arg(format!("--blobdev={}", blob.display()));
            }
            mkfs.arg(dir.join(recipe.name)).arg(&tree);
            let output = mkfs.output().context("cannot run mkfs.erofs")?;
            ensure!(
                output.status.success(),
                "mkfs.erofs: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(Images::in_directory(dir))
    }

    /// An image or blob by its name.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn get(&self, name: &str) -> Result<Arc<Image>> {
        let path = self.dir.join(name);
        let bytes = fs::read(&path).with_context(|| format!("no image {}", path.display()))?;
        Ok(Image::new(name, &bytes))
    }

    /// What the file in an image holds.
    ///
    /// # Errors
    ///
    /// There is no image of that name.
    pub fn contents(&self, name: &str) -> Result<Vec<u8>> {
        let Some(recipe) = RECIPES.iter().find(|recipe| recipe.name == name) else {
            bail!("no image {name}");
        };
        Ok(contents(recipe.seed, recipe.len, recipe.run))
    }
}

/// Bytes that look random and are always the same; each is repeated up to `run` times.
#[must_use]
pub fn contents(seed: u64, len: usize, run: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8 * run);
    while bytes.len() < len {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        for byte in word.to_le_bytes() {
            bytes.extend(std::iter::repeat_n(byte, run));
        }
    }
    bytes.truncate(len);
    bytes
}
