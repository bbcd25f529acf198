// SPDX-License-Identifier: MIT OR Apache-2.0

//! The objects of these tests, in several versions of one size, and the token of each version.
//!
//! Every block of every version begins with other bytes, so that a block found anywhere tells whose it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Token;
use cachefiles_proto::BLOCK_SIZE;

use super::random::Random;
use crate::harness::image;
use crate::harness::image::FILE;
use crate::harness::store::object_file;
use crate::harness::Image;

/// An object's key, the domain of its volume, and the bytes of the file in its image.
struct Recipe {
    key: &'static str,
    domain: Option<&'static str>,
    len: usize,
}

const fn recipe(key: &'static str, domain: Option<&'static str>, len: usize) -> Recipe {
    Recipe { key, domain, len }
}

const RECIPES: [Recipe; OBJECTS] = [
    recipe("one", Some("reorder"), 16 << 10),
    recipe("two", Some("reorder"), 96 << 10),
    recipe("three", Some("reorder"), 252 << 10),
    recipe("four", Some("reorder"), 160 << 10),
    recipe("five", None, 320 << 10),
    recipe("six", None, 64 << 10),
];

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// How many objects there are.
pub const OBJECTS: usize = 6;

/// How many versions there are of each.
pub const VERSIONS: usize = 4;

/// Bytes of the token of each version: with short ones the attribute has room in the inode, with long ones it
/// has not.
const TOKEN_BYTES: [usize; VERSIONS] = [2, 20, 32, 64];

/// The letter of a version, for messages.
#[must_use]
pub fn letter(version: usize) -> char {
    char::from(b'A' + u8::try_from(version % 26).unwrap_or(0))
}

/// The key of an object.
#[must_use]
pub fn key(object: usize) -> &'static str {
    RECIPES[object].key
}

/// How an object's image is mounted.
#[must_use]
pub fn options(object: usize) -> String {
    let Recipe { key, domain, .. } = RECIPES[object];
    match domain {
        Some(domain) => format!("domain_id={domain},fsid={key}"),
        None => format!("fsid={key}"),
    }
}

/// The bytes of the file in the image of an object.
#[must_use]
pub fn len(object: usize) -> usize {
    RECIPES[object].len
}

/// What that file holds: in each sector eight bytes that nothing else has, over and over.
fn contents(object: usize, version: usize) -> Vec<u8> {
    let mut random = Random::new(seed(object, version));
    let mut bytes = Vec::with_capacity(len(object));
    while bytes.len() < len(object) {
        bytes.extend(random.number().to_le_bytes().repeat(SECTOR / 8));
    }
    bytes
}

/// Where [`Versions::make`] leaves what the file of a version holds, below its directory.
#[must_use]
pub fn contents_file(dir: &Path, object: usize, version: usize) -> PathBuf {
    dir.join(format!("{}-{}", key(object), letter(version)))
}

fn seed(object: usize, version: usize) -> u64 {
    // The sequences of neighbouring numbers have nothing in common.
    (0x5eed_0000 + object * 16 + version) as u64
}

/// The token of a version; another one for each version of each object.
///
/// # Errors
///
/// None, for what it is made of is known.
pub fn token(object: usize, version: usize) -> Result<Token> {
    let bytes = image::contents(!seed(object, version), TOKEN_BYTES[version], 1);
    Ok(Token::new(&bytes)?)
}

/// The version of an object whose token this is.
#[must_use]
pub fn version_of(object: usize, bytes: &[u8]) -> Option<usize> {
    (0..VERSIONS)
        .find(|&version| token(object, version).is_ok_and(|token| token.as_bytes() == bytes))
}

/// Where the file of an object lies below the directory of a cache.
///
/// # Errors
///
/// None, for the keys are known.
pub fn path(dir: &Path, object: usize) -> Result<PathBuf> {
    let Recipe { key, domain, .. } = RECIPES[object];
    object_file(dir, &format!("erofs,{}", domain.unwrap_or(key)), key)
}

/// All images.
#[derive(Debug)]
pub struct Versions {
    images: Vec<Vec<Arc<Image>>>,
    /// The first bytes of each block: its object, version, and number.
    blocks: BTreeMap<[u8; 8], (usize, usize, usize)>,
}

impl Versions {
    /// Makes all images, in a directory that is there.
    ///
    /// # Errors
    ///
    /// `mkfs.erofs` is missing or fails.
    pub fn make(dir: &Path) -> Result<Self> {
        let mut versions = Versions {
            images: Vec::new(),
            blocks: BTreeMap::new(),
        };
        for object in 0..OBJECTS {
            let template = template(dir, object)?;
            let mut images = Vec::new();
            for version in 0..VERSIONS {
                let data = contents(object, version);
                fs::write(contents_file(dir, object, version), &data)?;
                let bytes = of_version(&template, object, version)?;
                for (number, block) in bytes.chunks(BLOCK_SIZE).enumerate() {
                    let begin = *block.first_chunk().context("a short block")?;
                    let other = versions.blocks.insert(begin, (object, version, number));
                    ensure!(other.is_none(), "two blocks begin alike: {other:?}");
                }
                images.push(Image::new(key(object), &bytes));
            }
            versions.images.push(images);
        }
        Ok(versions)
    }

    /// An object's image of a version.
    #[must_use]
    pub fn image(&self, object: usize, version: usize) -> &Arc<Image> {
        &self.images[object][version]
    }

    /// Whether a block belongs to an object.
    #[must_use]
    pub fn is_data(&self, block: &[u8]) -> bool {
        block
            .first_chunk()
            .is_some_and(|begin| self.blocks.contains_key(begin))
    }

    /// Whose block this is, for messages.
    #[must_use]
    pub fn whose(&self, block: &[u8]) -> String {
        let known = block.first_chunk().and_then(|begin| self.blocks.get(begin));
        match known {
            Some(&(object, version, number)) => {
                format!("block {number} of {} {}", key(object), letter(version))
            }
            None if block.iter().all(|byte| *byte == 0) => "zeros".into(),
            None => format!("unknown bytes {:02x?}", &block[..block.len().min(16)]),
        }
    }
}

/// The image of an object with its version 0, as `mkfs.erofs` makes it.
fn template(dir: &Path, object: usize) -> Result<Vec<u8>> {
    let tree = dir.join("tree");
    fs::create_dir_all(&tree)?;
    fs::write(tree.join(FILE), contents(object, 0))?;
    let image = dir.join("image");
    let output = Command::new("mkfs.erofs")
        .args(["--quiet", "-T0", "-U"])
        .arg("00000000-0000-4000-8000-000000000000")
        .arg(&image)
        .arg(&tree)
        .output()
        .context("cannot run mkfs.erofs")?;
    ensure!(
        output.status.success(),
        "mkfs.erofs: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(fs::read(image)?)
}

/// The same with the data of a version, and another first block.
fn of_version(template: &[u8], object: usize, version: usize) -> Result<Vec<u8>> {
    // Offset of `feature_compat` in the image, whose first bit says that there is a checksum.
    const FEATURE_COMPAT: usize = 1024 + 8;
    let mut bytes = template.to_vec();
    let (old, new) = (contents(object, 0), contents(object, version));
    let at = bytes
        .chunks(BLOCK_SIZE)
        .position(|block| block == &old[..BLOCK_SIZE])
        .context("the image does not hold its data")?
        * BLOCK_SIZE;
    let data = bytes.get_mut(at..at + new.len()).context("short")?;
    ensure!(data == old, "the data of the image lies in pieces");
    data.copy_from_slice(&new);
    bytes[FEATURE_COMPAT] &= !1;
    // Nobody looks at what stands before the superblock.
    bytes[..16].copy_from_slice(&image::contents(seed(object, version) << 32, 16, 1));
    bytes.resize(bytes.len().next_multiple_of(BLOCK_SIZE), 0);
    Ok(bytes)
}

#[cfg(test)]
mod tokens {
    use super::*;

    #[test]
    fn are_all_different_and_tell_the_version() -> Result<()> {
        for object in 0..OBJECTS {
            for version in 0..VERSIONS {
                let token = token(object, version)?;
                assert_eq!(version_of(object, token.as_bytes()), Some(version));
                let other = version_of((object + 1) % OBJECTS, token.as_bytes());
                assert_eq!(other, None);
            }
        }
        Ok(())
    }

    #[test]
    fn versions_have_no_block_in_common() -> Result<()> {
        // As an image whose first block holds everything but the data.
        for object in 0..2 {
            let template = [vec![0; BLOCK_SIZE], contents(object, 0)].concat();
            let all: Vec<Vec<u8>> = (0..VERSIONS)
                .map(|version| of_version(&template, object, version))
                .collect::<Result<_>>()?;
            for (number, one) in all.iter().enumerate() {
                for other in &all[number + 1..] {
                    let pairs = one.chunks(BLOCK_SIZE).zip(other.chunks(BLOCK_SIZE));
                    assert!(pairs.into_iter().all(|(one, other)| one[..8] != other[..8]));
                }
            }
        }
        Ok(())
    }
}
