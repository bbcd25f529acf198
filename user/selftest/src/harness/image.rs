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

/// An image whose data lies in a device of its own, of this name, and the bytes of that device: made of
/// `image`, which has one device. `mkfs.erofs` puts no compressed data into a second one.
///
/// # Errors
///
/// The image is too large, or the name too long, for a device table.
pub fn with_device(image: &Image, device: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    const BLOCK: usize = 4096;
    const SLOT: usize = 128;
    // Offsets in `struct erofs_super_block`, of 16 and 32 bit little-endian numbers.
    const SUPER: usize = 1024;
    const FEATURE_COMPAT: usize = SUPER + 8;
    const FEATURE_INCOMPAT: usize = SUPER + 80;
    const EXTRA_DEVICES: usize = SUPER + 86;
    const DEVT_SLOTOFF: usize = SUPER + 88;
    const SB_CHKSUM: u8 = 1;
    const DEVICE_TABLE: u8 = 8;

    let data = image.bytes()[BLOCK..].to_vec();
    let mut primary = image.bytes().to_vec();
    primary[FEATURE_COMPAT] &= !SB_CHKSUM;
    primary[FEATURE_INCOMPAT] |= DEVICE_TABLE;
    primary[EXTRA_DEVICES..][..2].copy_from_slice(&1_u16.to_le_bytes());
    let slot_number = u16::try_from(primary.len() / SLOT)?;
    primary[DEVT_SLOTOFF..][..2].copy_from_slice(&slot_number.to_le_bytes());
    // `struct erofs_deviceslot`: all blocks but the first are looked for in the device.
    let mut slot = [0; BLOCK];
    let tag = device.as_bytes();
    ensure!(tag.len() <= 64, "{device} is too long for a tag");
    slot[..tag.len()].copy_from_slice(tag);
    slot[64..68].copy_from_slice(&u32::try_from(data.len() / BLOCK)?.to_le_bytes());
    slot[68..72].copy_from_slice(&1_u32.to_le_bytes());
    primary.extend(slot);
    Ok((primary, data))
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
