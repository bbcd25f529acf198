// SPDX-License-Identifier: MIT OR Apache-2.0

//! Small EROFS images whose every byte is known.
//!
//! C header: `fs/erofs/erofs_fs.h`, through `mkfs.erofs`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;

pub use mockd::image::Aligned;
pub use mockd::image::Image;

/// The name of the file that every image holds.
pub const FILE: &str = "data";

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
        let path = self.dir.join(format!("{name}.d")).join(FILE);
        fs::read(&path).with_context(|| format!("no image {name}: {}", path.display()))
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
            bytes.resize(bytes.len() + run, byte);
        }
    }
    bytes.truncate(len);
    bytes
}
