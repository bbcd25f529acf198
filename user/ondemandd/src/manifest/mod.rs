// SPDX-License-Identifier: MIT OR Apache-2.0

//! Manifests: a digest of each chunk of a blob, so that wrong bytes never reach the cache.
//!
//! The manifest of the blob `IMAGE` is the blob `IMAGE.manifest` of the same source. It is text:
//!
//! ```text
//! ondemandd-manifest 1             the format, and its version
//! size 200000                      of the blob, in bytes
//! chunk 65536                      bytes a chunk: a power of two from 4096 to 1048576
//! digest sha256
//! <64 hex digits>                  of the first chunk, as sha256sum prints it
//! ...                              one line a chunk; the last chunk ends where the blob does
//! end <64 hex digits>              of all that stands above, up to and with its last newline
//! ```
//!
//! Each line ends with one newline. Nothing else is allowed: a reader that does not know a version, a digest or
//! a line refuses the manifest, and the blob with it.
//!
//! A manifest that lies beside its blob protects against whatever spoils data on the way or in the
//! store. It does not protect against somebody who can write both.

mod make;

use std::fmt::Write;

use sha2::Digest;
use sha2::Sha256;
use thiserror::Error;

pub use make::run;

use crate::source::token::Identity;

/// What is added to the name of a blob.
pub const SUFFIX: &str = ".manifest";
/// The smallest chunk: one block.
pub const SMALLEST_CHUNK: u32 = 4096;
/// The largest chunk: what a thread of the worker has memory for.
pub const LARGEST_CHUNK: u32 = 1 << 20;
/// Manifests are no longer, in bytes: enough for 64 GiB in chunks of 64 KiB, or 1 TiB in chunks of 1 MiB.
pub const LONGEST: u64 = 66 << 20;

const FIRST_LINE: &str = "ondemandd-manifest 1";

/// A digest of a chunk.
type Sum = [u8; 32];

/// Why a text is no manifest.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ManifestError {
    /// The first line names another format or version.
    #[error("no manifest of version 1")]
    Version,
    /// A line is not what stands there in a manifest; lines count from 1.
    #[error("line {0} is malformed")]
    Line(usize),
    /// There are more or fewer digests than chunks.
    #[error("{have} digests for {want} chunks")]
    Count {
        /// Digests that are there.
        have: u64,
        /// Chunks that the size makes.
        want: u64,
    },
    /// The last line does not fit the others.
    #[error("damaged: the digest at its end does not fit")]
    Damaged,
}

/// A manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    size: u64,
    chunk: u32,
    sums: Vec<Sum>,
}

/// Whether chunks may be of this many bytes.
#[must_use]
pub fn is_chunk(bytes: u32) -> bool {
    bytes.is_power_of_two() && (SMALLEST_CHUNK..=LARGEST_CHUNK).contains(&bytes)
}

/// How long the manifest of a blob of this size may be, in bytes.
#[must_use]
pub fn longest_of(size: u64) -> u64 {
    // A line for each of the smallest chunks, and the other lines.
    let lines = size.div_ceil(u64::from(SMALLEST_CHUNK)).saturating_mul(65);
    lines.saturating_add(200).min(LONGEST)
}

/// The digest of one chunk.
#[must_use]
pub fn sum(chunk: &[u8]) -> Sum {
    Sha256::digest(chunk).into()
}

impl Manifest {
    /// A manifest of `sums`, one a chunk.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Count`]
    ///
    /// # Panics
    ///
    /// `chunk` is not one that [`is_chunk`] accepts.
    pub fn new(size: u64, chunk: u32, sums: Vec<Sum>) -> Result<Self, ManifestError> {
        assert!(is_chunk(chunk), "a chunk of {chunk} bytes");
        let want = size.div_ceil(u64::from(chunk));
        let have = u64::try_from(sums.len()).unwrap_or(u64::MAX);
        if have != want {
            return Err(ManifestError::Count { have, want });
        }
        Ok(Manifest { size, chunk, sums })
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// A [`ManifestError`].
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        let text = std::str::from_utf8(text).map_err(|_| ManifestError::Version)?;
        let mut lines = text.split_inclusive('\n').zip(1..);
        let mut next = || match lines.next() {
            Some((line, number)) => match line.strip_suffix('\n') {
                Some(line) => Ok((line, number)),
                None => Err(ManifestError::Line(number)),
            },
            None => Err(ManifestError::Damaged),
        };
        if next() != Ok((FIRST_LINE, 1)) {
            return Err(ManifestError::Version);
        }
        let (line, number) = next()?;
        let size = number_of(line, "size ").ok_or(ManifestError::Line(number))?;
        let (line, number) = next()?;
        let chunk = number_of(line, "chunk ")
            .and_then(|bytes| u32::try_from(bytes).ok())
            .filter(|bytes| is_chunk(*bytes))
            .ok_or(ManifestError::Line(number))?;
        let (line, number) = next()?;
        if line != "digest sha256" {
            return Err(ManifestError::Line(number));
        }
        let mut sums = Vec::new();
        let end = loop {
            let (line, number) = next()?;
            let (digits, last) = match line.strip_prefix("end ") {
                Some(digits) => (digits, true),
                None => (line, false),
            };
            let sum = sum_of(digits).ok_or(ManifestError::Line(number))?;
            if last {
                break sum;
            }
            sums.push(sum);
        };
        if let Some((_, number)) = lines.next() {
            return Err(ManifestError::Line(number));
        }
        let above = text.rfind("end ").unwrap_or(0);
        if sum(&text.as_bytes()[..above]) != end {
            return Err(ManifestError::Damaged);
        }
        Manifest::new(size, chunk, sums)
    }

    /// The text, as it is stored.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Manifest { size, chunk, .. } = self;
        let mut text = format!("{FIRST_LINE}\nsize {size}\nchunk {chunk}\ndigest sha256\n");
        text.reserve((self.sums.len() + 2) * 65);
        for sum in &self.sums {
            push_hex(&mut text, sum);
            text.push('\n');
        }
        let end = sum(text.as_bytes());
        text.push_str("end ");
        push_hex(&mut text, &end);
        text.push('\n');
        text
    }

    /// Which version of a blob it describes: the one of these bytes, and no other.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let mut digest = Sha256::new();
        for sum in &self.sums {
            digest.update(sum);
        }
        let root: Sum = digest.finalize().into();
        let (size, chunk) = (self.size.to_le_bytes(), self.chunk.to_le_bytes());
        let mut what = format!("{} bytes, manifest ", self.size);
        push_hex(&mut what, &root[..8]);
        Identity::new("manifest", &[&size, &chunk, &root], &what)
    }

    /// Size of the blob, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes a chunk.
    #[must_use]
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.sums.len()
    }

    /// Whether `data` is the chunk that begins at `offset`.
    #[must_use]
    pub fn fits(&self, offset: u64, data: &[u8]) -> bool {
        let chunk = u64::from(self.chunk);
        let index = usize::try_from(offset / chunk).ok();
        let want = index.and_then(|index| self.sums.get(index));
        offset.is_multiple_of(chunk) && want.is_some_and(|want| *want == sum(data))
    }
}

/// A decimal number after a word, written in the only way that a number is.
fn number_of(line: &str, word: &str) -> Option<u64> {
    let digits = line.strip_prefix(word)?;
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

fn sum_of(digits: &str) -> Option<Sum> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 64 || !digits.as_bytes().iter().all(is_digit) {
        return None;
    }
    let mut sum = [0; 32];
    for (byte, two) in sum.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let two = std::str::from_utf8(two).ok()?;
        *byte = u8::from_str_radix(two, 16).ok()?;
    }
    Some(sum)
}

fn push_hex(text: &mut String, sum: &[u8]) {
    for byte in sum {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests;
