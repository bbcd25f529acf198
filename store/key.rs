// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Cookie key to file name.
//!
//! An object lives at `cache/I<volume key>/@<xx>/<cooked key>` below the directory of the cache. These
//! names are a contract: daemons compute them, and a store that the C module has filled is read on.
//!
//! A key that is a usable file name stands as it is after a `D`. Any other is written in the shortest
//! of three ways, which its first letter tells:
//!
//! - `S`: 32-bit big-endian words in hexadecimal, a comma between them, nothing for a zero word;
//! - `T`: the same with little-endian words;
//! - `E`: a digit that counts the missing bytes of the last group (0, 1 or 2), then four digits of six
//!   bits, least significant first, for each group of three little-endian bytes.
//!
//! For words and groups the key is padded with zeros.
//!
//! C headers: `include/linux/fscache-cache.h`, `include/uapi/linux/limits.h`.

use core::fmt;

use crate::errno::Errno;

/// The longest file name in bytes.
pub const NAME_MAX: usize = 255;

/// The longest cookie key in bytes that has a name. fscache itself accepts keys of up to 255.
pub const KEY_MAX: usize = NAME_MAX - 3;

/// A file name of 1 to 255 bytes, none of which is NUL or `/`.
#[derive(Clone, PartialEq, Eq)]
pub struct FileName {
    bytes: [u8; NAME_MAX],
    /// How many of `bytes` are in use; the rest is zero.
    len: usize,
}

impl FileName {
    const fn new() -> Self {
        Self {
            bytes: [0; NAME_MAX],
            len: 0,
        }
    }

    /// Appends a byte; `ENAMETOOLONG` if that would be the 256th.
    fn push(&mut self, byte: u8) -> Result<(), Errno> {
        let slot = self.bytes.get_mut(self.len).ok_or(Errno::ENAMETOOLONG)?;
        *slot = byte;
        self.len += 1;
        Ok(())
    }

    /// Appends bytes; `ENAMETOOLONG` if they do not all fit.
    fn extend(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        bytes.iter().try_for_each(|&byte| self.push(byte))
    }

    /// The name, without a terminating NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// Turns a cookie key into the name of its file.
///
/// Keys of one volume whose names are equal are equal, up to zeros at the end: `S` and `T` names do
/// not tell how many of those the last word was padded with.
///
/// # Errors
///
/// - `EINVAL`: the key is empty. fscache makes no cookie without a key.
/// - `ENAMETOOLONG`: the key is longer than [`KEY_MAX`], or its shortest name longer than
///   [`NAME_MAX`]. The latter needs a key of 190 bytes or more that is no file name itself.
pub fn cook(key: &[u8]) -> Result<FileName, Errno> {
    if key.is_empty() {
        return Err(Errno::EINVAL);
    }
    if key.len() > KEY_MAX {
        return Err(Errno::ENAMETOOLONG);
    }

    let mut name = FileName::new();
    if key.iter().copied().all(is_plain) {
        name.push(b'D')?;
        name.extend(key)?;
        return Ok(name);
    }

    let big = words_len(key, u32::from_be_bytes);
    let little = words_len(key, u32::from_le_bytes);
    if big.min(little) >= groups_len(key) {
        push_groups(&mut name, key)?;
    } else if big <= little {
        push_words(&mut name, b'S', key, u32::from_be_bytes)?;
    } else {
        push_words(&mut name, b'T', key, u32::from_le_bytes)?;
    }
    Ok(name)
}

/// The name of the directory of a volume: `I` and the volume's key.
///
/// # Errors
///
/// - `EINVAL`: the key is empty, or holds a NUL or a `/`, and could not be looked up.
/// - `ENAMETOOLONG`: the key is longer than 254 bytes.
pub fn volume_name(key: &[u8]) -> Result<FileName, Errno> {
    if key.is_empty() || key.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(Errno::EINVAL);
    }
    let mut name = FileName::new();
    name.push(b'I')?;
    name.extend(key)?;
    Ok(name)
}

/// The name of the fan-out directory that a cookie with this key hash lives in: `@00` to `@ff`.
pub fn fanout_name(hash: u32) -> [u8; 3] {
    let [low, ..] = hash.to_le_bytes();
    [b'@', hex_digit(low >> 4), hex_digit(low)]
}

/// fscache's hash, which is the same on every architecture because it is seen on disk.
///
/// `data` is padded with zeros to a multiple of four bytes. A volume's hash has the salt 0, a
/// cookie's has its volume's hash for a salt.
#[allow(
    dead_code,
    reason = "the kernel hands hashes over, only the host computes them"
)]
pub fn fscache_hash(salt: u32, data: &[u8]) -> u32 {
    let (x, y) = words(data)
        .map(u32::from_le_bytes)
        .fold((0u32, salt), |(x, y), word| {
            let x = x ^ word;
            let y = y ^ x;
            let x = x.rotate_left(7).wrapping_add(y);
            let y = y.rotate_left(20).wrapping_mul(9);
            (x, y)
        });
    golden(y ^ golden(x))
}

/// Multiplicative hashing by the golden ratio, `__hash_32` of `include/linux/hash.h`.
#[allow(dead_code, reason = "see fscache_hash")]
const fn golden(value: u32) -> u32 {
    value.wrapping_mul(0x61c8_8647)
}

/// Whether a byte may stand in a `D` name: no blank, no control character but DEL, no `/`, and nothing
/// beyond ASCII. That DEL passes is an old slip which names on disk depend on.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, 33..=46 | 48..=127)
}

/// The key in words of four bytes, the last one padded with zeros.
fn words(key: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    key.chunks(4).map(padded)
}

/// The first `N` bytes of a chunk, zeros where it has fewer.
fn padded<const N: usize>(chunk: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(chunk) {
        *to = *from;
    }
    bytes
}

/// How many hexadecimal digits a word is written with: none for zero, 8 at the most.
const fn hex_len(word: u32) -> u32 {
    (u32::BITS - word.leading_zeros()).div_ceil(4)
}

/// The length of an `S` or `T` name in bytes, where every word has a letter or a comma before it.
fn words_len(key: &[u8], decode: fn([u8; 4]) -> u32) -> u32 {
    words(key).map(|word| 1 + hex_len(decode(word))).sum()
}

/// The length of an `E` name in bytes.
fn groups_len(key: &[u8]) -> u32 {
    key.chunks(3).map(|_| 4).sum::<u32>() + 2
}

fn push_words(
    name: &mut FileName,
    letter: u8,
    key: &[u8],
    decode: fn([u8; 4]) -> u32,
) -> Result<(), Errno> {
    let mut separator = letter;
    for word in words(key).map(decode) {
        name.push(separator)?;
        separator = b',';
        for place in (0..hex_len(word)).rev() {
            let [low, ..] = (word >> (4 * place)).to_le_bytes();
            name.push(hex_digit(low))?;
        }
    }
    Ok(())
}

fn push_groups(name: &mut FileName, key: &[u8]) -> Result<(), Errno> {
    name.push(b'E')?;
    name.push(match key.len() % 3 {
        0 => b'0',
        1 => b'2',
        _ => b'1',
    })?;
    for group in key.chunks(3) {
        let [a, b, c] = padded(group);
        let bits = u32::from_le_bytes([a, b, c, 0]);
        for place in 0..4 {
            let [low, ..] = (bits >> (6 * place)).to_le_bytes();
            name.push(six_bit_digit(low))?;
        }
    }
    Ok(())
}

/// The lower-case digit of the low four bits.
const fn hex_digit(bits: u8) -> u8 {
    match bits & 0xf {
        digit @ 0..=9 => b'0' + digit,
        letter => b'a' + (letter - 10),
    }
}

/// The digit of the low six bits: `0-9a-zA-Z_-`.
const fn six_bit_digit(bits: u8) -> u8 {
    match bits & 0x3f {
        digit @ 0..=9 => b'0' + digit,
        lower @ 10..=35 => b'a' + (lower - 10),
        upper @ 36..=61 => b'A' + (upper - 36),
        62 => b'_',
        _ => b'-',
    }
}
