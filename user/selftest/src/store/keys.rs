// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cookie keys of every kind that can be had through EROFS.
//!
//! A key is what `fsid=` says: any bytes but NUL and `,`. So a word that is all zeros, which has no
//! digits in a name, never comes up; the host tests of `store/key.rs` have it.

use ondemand_core::key;

use super::items::Item;

/// The domain of all keys here.
pub const DOMAIN: &[u8] = b"keys";

/// Bytes that a file name takes as they are, and `mount` too.
fn printable(len: usize) -> Vec<u8> {
    let alphabet: Vec<u8> = (33..=127).filter(|byte| !b"/,".contains(byte)).collect();
    filled(len, &alphabet)
}

/// The same with a slash at the end.
fn with_slash(len: usize) -> Vec<u8> {
    let mut key = printable(len);
    if let Some(last) = key.last_mut() {
        *last = b'/';
    }
    key
}

/// High and low bytes, and blanks.
fn binary(len: usize) -> Vec<u8> {
    let alphabet: Vec<u8> = (128..=255).chain(1..=32).collect();
    filled(len, &alphabet)
}

/// Low bytes first and high ones last in each word: shortest in big-endian words.
fn low_first(len: usize) -> Vec<u8> {
    (0..len).map(|at| [1, 2, b'/', 0x7f][at % 4]).collect()
}

/// The reverse: shortest in little-endian words.
fn high_first(len: usize) -> Vec<u8> {
    (0..len).map(|at| [0xfe, b'/', 2, 1][at % 4]).collect()
}

/// So many bytes of an alphabet, beginning elsewhere for each length.
fn filled(len: usize, alphabet: &[u8]) -> Vec<u8> {
    (0..len)
        .map(|at| alphabet[(at * 7 + len) % alphabet.len()])
        .collect()
}

/// Lengths around which something changes: groups of 3, words of 4, powers of two, the ends.
const LENGTHS: [usize; 27] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 187,
    188, 189,
];

/// Keys that have a name, shortest first, each once: printable ones of every length from 1 to 252, and
/// others of chosen lengths. What has no name is left out: the C module stores it under a wrong one
/// (D2), or crashes (D3).
#[must_use]
pub fn all() -> Vec<Vec<u8>> {
    let makers: [fn(usize) -> Vec<u8>; 4] = [with_slash, binary, low_first, high_first];
    let mut keys: Vec<Vec<u8>> = (1..=key::KEY_MAX).map(printable).collect();
    for make in makers {
        keys.extend(LENGTHS.into_iter().map(make));
    }
    keys.extend([
        b"/".to_vec(),
        b"%/%".to_vec(),
        b"0/".to_vec(),
        b"a b".to_vec(),
    ]);
    keys.retain(|key| key::cook(key).is_ok());
    keys.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    keys.dedup();
    keys
}

/// The keys as images to be read from end to end.
#[must_use]
pub fn items() -> Vec<Item> {
    all()
        .into_iter()
        .map(|key| Item::whole(Some(DOMAIN), key, "small"))
        .collect()
}

#[cfg(test)]
mod kinds {
    use super::*;

    #[test]
    fn every_length_and_every_way_to_write_a_key_is_there() {
        let keys = all();
        for len in 1..=key::KEY_MAX {
            assert!(keys.iter().any(|key| key.len() == len), "length {len}");
        }
        let mut ways: Vec<u8> = keys
            .iter()
            .filter_map(|key| Some(*key::cook(key).ok()?.as_bytes().first()?))
            .collect();
        ways.sort_unstable();
        ways.dedup();
        assert_eq!(ways, b"DEST");
        assert!(keys
            .iter()
            .all(|key| !key.contains(&0) && !key.contains(&b',')));
        // The longest name that there is.
        let longest = keys.iter().filter_map(|key| key::cook(key).ok());
        assert_eq!(longest.map(|name| name.as_bytes().len()).max(), Some(254));
    }
}
