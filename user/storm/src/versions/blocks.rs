// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images in versions, whose every block says which image, which version and which block it is.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Context, Result};

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;

/// Blocks of the file in an image.
pub(super) const BLOCKS: u64 = 160;

/// The name of that file.
pub(super) const FILE: &str = "data";

/// One version of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Which image.
    pub(super) image: u8,
    /// Which version of it.
    pub(super) number: u8,
}

impl Version {
    /// What is in a block: all of it follows from its first 16 bytes.
    pub(super) fn block(self, index: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        // Odd, so that no word is zero and each is another one.
        let mut word =
            u64::from_be_bytes([self.image, self.number, 0, 0, 0, 0, 0, 0]) | index << 1 | 1;
        for (number, place) in block.chunks_exact_mut(8).enumerate() {
            place.copy_from_slice(&word.to_be_bytes());
            // The second half is that of an image that can be compressed.
            if number % 2 == 0 || self.image % 2 == 0 {
                word = word.wrapping_mul(0x5851_f42d_4c95_7f2d);
            }
        }
        block
    }

    /// Which version a block is of, by its bytes; what it is instead, if it is of none.
    pub(super) fn of_block(image: u8, versions: u8, index: u64, bytes: &[u8]) -> Result<Version> {
        let found = (0..versions)
            .map(|number| Version { image, number })
            .find(|version| version.block(index) == bytes);
        found.with_context(|| {
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            format!(
                "block {index} is of no version: it has {zeros} zeros and begins with {:02x?}",
                &bytes[..16]
            )
        })
    }
}

/// Makes all versions of an image in `dir`; their files, by number.
///
/// # Errors
/// When `mkfs.erofs` is missing or fails.
pub(super) fn make(dir: &Path, image: u8, versions: u8) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for number in 0..versions {
        let version = Version { image, number };
        let tree = dir.join("tree");
        fs::create_dir_all(&tree)?;
        let data: Vec<u8> = (0..BLOCKS).flat_map(|index| version.block(index)).collect();
        fs::write(tree.join(FILE), data)?;
        let file = dir.join(format!("{image}.{number}"));
        let mut mkfs = Command::new("mkfs.erofs");
        mkfs.args(["--quiet", "--all-root", "-T0"]);
        mkfs.arg(format!("-U00000000-0000-0000-0000-{image:012}"));
        if image % 2 == 1 {
            mkfs.args(["-zlz4", "-C16384"]);
        }
        let output = mkfs.args([&file, &tree]).output().context("mkfs.erofs")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "mkfs.erofs: {said}");
        files.push(file);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_of_one_version() {
        for image in [0, 1] {
            for number in 0..3 {
                let version = Version { image, number };
                for index in [0, 1, BLOCKS - 1] {
                    let block = version.block(index);
                    assert_eq!(Version::of_block(image, 3, index, &block).unwrap(), version);
                    assert!(Version::of_block(image, 3, index + 1, &block).is_err());
                }
            }
        }
        let mut mixed = Version {
            image: 0,
            number: 0,
        }
        .block(3);
        mixed[BLOCK / 2..].copy_from_slice(
            &Version {
                image: 0,
                number: 1,
            }
            .block(3)[BLOCK / 2..],
        );
        assert!(Version::of_block(0, 3, 3, &mixed).is_err());
        assert!(Version::of_block(0, 3, 3, &[0; BLOCK]).is_err());
    }
}
