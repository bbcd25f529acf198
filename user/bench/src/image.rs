// SPDX-License-Identifier: MIT OR Apache-2.0

//! The images that are read: each holds one file, every block of which says where it belongs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::BLOCK_SIZE;
use rand::RngCore as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// The name of the file in each image.
pub(crate) const FILE: &str = "data";

/// [`BLOCK_SIZE`] as an offset.
pub(crate) const BLOCK: u64 = 4096;

const _: () = assert!(BLOCK_SIZE == 4096);

/// How one image is made.
pub(crate) struct Recipe {
    /// Its file's name.
    pub(crate) name: &'static str,
    /// Blocks in the file that it holds.
    pub(crate) blocks: u64,
    /// Whether half of each block is text that repeats itself.
    compressible: bool,
    arguments: &'static [&'static str],
}

/// 96 MiB of noise.
pub(crate) const PLAIN: Recipe = Recipe {
    name: "plain",
    blocks: (96 << 20) / BLOCK,
    compressible: false,
    arguments: &[],
};

/// 32 MiB of it.
pub(crate) const PLAIN_QUICK: Recipe = Recipe {
    name: "plain-quick",
    blocks: (32 << 20) / BLOCK,
    compressible: false,
    arguments: &[],
};

/// One of many whose contents are read.
pub(crate) const MEDIUM: Recipe = Recipe {
    name: "medium",
    blocks: 256,
    compressible: false,
    arguments: &[],
};

/// One of many that are only mounted.
pub(crate) const SMALL: Recipe = Recipe {
    name: "small",
    blocks: 4,
    compressible: false,
    arguments: &[],
};

/// Compressed, in clusters of up to 64 KiB.
pub(crate) const LZ4: Recipe = Recipe {
    name: "lz4",
    blocks: (16 << 20) / BLOCK,
    compressible: true,
    arguments: &["-zlz4hc", "-C65536"],
};

impl Recipe {
    /// The option that mounts it over fscache.
    pub(crate) fn fsid(&self) -> String {
        format!("fsid={}", self.name)
    }

    /// The options that mount the same bytes as one of many images of a domain.
    pub(crate) fn fsid_of_many(&self, number: usize) -> String {
        format!("fsid={}.{number},domain_id=many", self.name)
    }
}

const RECIPES: [&Recipe; 5] = [&PLAIN, &PLAIN_QUICK, &MEDIUM, &SMALL, &LZ4];

/// The file that a cookie key stands for: its part before the first dot, so that many images can
/// be served from one file.
pub(crate) fn file_of_key(key: &str) -> &str {
    key.split('.').next().unwrap_or(key)
}

/// What the first eight bytes of a block say.
pub(crate) fn stamp(block: u64) -> [u8; 8] {
    (block ^ 0x6f6e_6465_6d61_6e64).to_le_bytes()
}

/// Fails unless `data`, read from `block` on, is what was written there.
///
/// # Errors
///
/// A block is from somewhere else.
pub(crate) fn check(data: &[u8], block: u64) -> Result<()> {
    for (at, bytes) in (block..).zip(data.chunks(BLOCK_SIZE)) {
        ensure!(bytes.starts_with(&stamp(at)), "block {at} has wrong bytes");
    }
    Ok(())
}

/// What the file in an image holds.
fn contents(recipe: &Recipe) -> Result<Vec<u8>> {
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.blocks);
    let mut bytes = vec![0; usize::try_from(recipe.blocks)? * BLOCK_SIZE];
    for (number, block) in (0..).zip(bytes.chunks_mut(BLOCK_SIZE)) {
        let noise = match recipe.compressible {
            true => BLOCK_SIZE / 2,
            false => BLOCK_SIZE,
        };
        rng.fill_bytes(&mut block[..noise]);
        for text in block[noise..].chunks_mut(32) {
            text.copy_from_slice(b"a line that is always the same.\n");
        }
        block[..8].copy_from_slice(&stamp(number));
    }
    Ok(bytes)
}

/// Makes all images in `dir`; the same bytes every time.
///
/// # Errors
///
/// `mkfs.erofs` is missing or fails; the directory cannot be written.
pub(crate) fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for recipe in RECIPES {
        let tree = dir.join(format!("{}.d", recipe.name));
        fs::create_dir_all(&tree)?;
        fs::write(tree.join(FILE), contents(recipe)?)?;
        let output = Command::new("mkfs.erofs")
            .args(["--quiet", "--all-root", "-T0"])
            .args(["-U", "00000000-0000-4000-8000-000000000000"])
            .args(recipe.arguments)
            .arg(dir.join(recipe.name))
            .arg(&tree)
            .output()
            .context("cannot run mkfs.erofs")?;
        ensure!(
            output.status.success(),
            "mkfs.erofs: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        fs::remove_dir_all(&tree)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_know_their_place() {
        let bytes = contents(&MEDIUM).unwrap();
        check(&bytes, 0).unwrap();
        check(&bytes[3 * BLOCK_SIZE..], 3).unwrap();
        assert!(check(&bytes[3 * BLOCK_SIZE..], 4).is_err());
        assert!(check(&[0; BLOCK_SIZE], 0).is_err());
    }

    #[test]
    fn only_what_should_repeats_itself() {
        let half = |recipe| {
            let bytes = contents(recipe).unwrap();
            let (first, second) = (&bytes[..BLOCK_SIZE], &bytes[BLOCK_SIZE..2 * BLOCK_SIZE]);
            assert_ne!(first[..BLOCK_SIZE / 2], second[..BLOCK_SIZE / 2]);
            first[BLOCK_SIZE / 2..] == second[BLOCK_SIZE / 2..]
        };
        assert!(half(&LZ4) && !half(&MEDIUM));
    }

    #[test]
    fn many_keys_are_one_file() {
        assert_eq!(file_of_key("small.17"), "small");
        assert_eq!(file_of_key("plain"), "plain");
        assert_eq!(file_of_key(".."), "");
    }
}
