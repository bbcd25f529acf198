// SPDX-License-Identifier: MIT OR Apache-2.0

//! File names, byte for byte those that the C module writes. D2 and D3 are where they differ.

use ondemand_core::errno::Errno;
use ondemand_core::key;
use ondemand_core::key::KEY_MAX;
use ondemand_core::key::NAME_MAX;
use ondemand_core::layout;
use proptest::prelude::*;

/// One line of the table of keys.
struct Vector {
    key: Vec<u8>,
    name: Vec<u8>,
    hash: u32,
    salted: u32,
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn vectors() -> Vec<Vector> {
    let table = include_str!("../../testdata/keys.tsv");
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let vectors: Vec<_> = lines
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let [key, name, hash, salted] = columns[..] else {
                panic!("not four columns: {line}");
            };
            Vector {
                key: from_hex(key),
                name: name.as_bytes().to_vec(),
                hash: u32::from_str_radix(hash, 16).unwrap(),
                salted: u32::from_str_radix(salted, 16).unwrap(),
            }
        })
        .collect();
    assert!(vectors.len() >= 200);
    vectors
}

/// A store that the C module has filled must be found again.
#[test]
fn names_are_those_of_the_c_module() {
    let mut seen = [0; 4];
    for Vector { key, name, .. } in vectors() {
        if name.len() <= NAME_MAX {
            assert_eq!(key::cook(&key).unwrap().as_bytes(), name);
            seen[b"DSTE"
                .iter()
                .position(|&letter| letter == name[0])
                .unwrap()] += 1;
        } else {
            assert_eq!(key::cook(&key), Err(Errno::ENAMETOOLONG));
        }
    }
    assert!(seen.iter().all(|&count| count >= 20), "{seen:?}");
}

#[test]
fn hashes_are_those_of_the_c_module() {
    for Vector {
        key, hash, salted, ..
    } in vectors()
    {
        assert_eq!(key::fscache_hash(0, &key), hash);
        assert_eq!(key::fscache_hash(0xdead_beef, &key), salted);
    }
}

/// D2: names of 256 bytes and more were cut to their length modulo 256, and met each other.
#[test]
fn d2_over_long_names_are_refused() {
    for (len, expected) in [(189, Some(254)), (190, None), (192, None), (KEY_MAX, None)] {
        let mut key = vec![b'k'; len];
        key[0] = b'/';
        let result = key::cook(&key).map(|name| name.as_bytes().len());
        assert_eq!(
            result,
            expected.ok_or(Errno::ENAMETOOLONG),
            "key of {len} bytes"
        );
    }
}

/// D3: keys of 253 bytes and more were a BUG.
#[test]
fn d3_key_lengths() {
    for (len, expected) in [
        (0, Err(Errno::EINVAL)),
        (1, Ok(2)),
        (251, Ok(252)),
        (252, Ok(253)),
        (253, Err(Errno::ENAMETOOLONG)),
        (254, Err(Errno::ENAMETOOLONG)),
        (255, Err(Errno::ENAMETOOLONG)),
        (256, Err(Errno::ENAMETOOLONG)),
        (100_000, Err(Errno::ENAMETOOLONG)),
    ] {
        let result = key::cook(&vec![b'k'; len]).map(|name| name.as_bytes().len());
        assert_eq!(result, expected, "key of {len} bytes");
    }
    // 252 zeros are 63 words that are written with one byte each.
    assert_eq!(key::cook(&[0; 252]).unwrap().as_bytes().len(), 63);
}

#[test]
fn volume_names() {
    assert_eq!(
        key::volume_name(b"erofs,d").unwrap().as_bytes(),
        b"Ierofs,d"
    );
    assert_eq!(
        key::volume_name(&[b'v'; 254]).unwrap().as_bytes().len(),
        255
    );
    assert_eq!(key::volume_name(&[b'v'; 255]), Err(Errno::ENAMETOOLONG));
    for wrong in [&b""[..], b"a/b", b"a\0b", b"/", b"\0"] {
        assert_eq!(key::volume_name(wrong), Err(Errno::EINVAL));
    }
}

#[test]
fn fanout_is_the_low_byte() {
    for (hash, name) in [
        (0, b"@00"),
        (0xff, b"@ff"),
        (0x100, b"@00"),
        (0x1234_56a0, b"@a0"),
        (u32::MAX, b"@ff"),
    ] {
        assert_eq!(&key::fanout_name(hash), name);
    }
}

#[test]
fn volume_hash_covers_count_and_nul() {
    let hash = key::fscache_hash(0, b"\x07erofs,d\0");
    assert_eq!(layout::volume_hash(b"erofs,d"), Ok(hash));
    assert!(layout::volume_hash(&[b'v'; 255]).is_ok());
    assert_eq!(layout::volume_hash(&[b'v'; 256]), Err(Errno::ENAMETOOLONG));
    let path = layout::object_path(b"erofs,d", b"test.img").unwrap();
    assert_eq!(path.volume.as_bytes(), b"Ierofs,d");
    assert_eq!(
        path.fanout,
        key::fanout_name(key::fscache_hash(hash, b"test.img"))
    );
    assert_eq!(path.file.as_bytes(), b"Dtest.img");
}

/// Keys of every kind: bytes at random, file names, mostly zeros, small words.
fn any_key(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => any::<u8>(),
        3 => 33..=127u8,
        3 => Just(0u8),
        1 => prop::sample::select(&b"/\0 \x7f\x80\xff"[..]),
    ];
    prop::collection::vec(byte, len)
}

/// Two keys of one length, more often than not alike in most bytes.
fn pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (1..=KEY_MAX).prop_flat_map(|len| {
        (any_key(len), any_key(len), any::<bool>(), 0..len).prop_map(|(a, other, near, at)| {
            if near {
                let mut b = a.clone();
                b[at] = other[at];
                (a, b)
            } else {
                (a, other)
            }
        })
    })
}

proptest! {
    #[test]
    fn a_name_is_a_file_name(key in any_key(0..300)) {
        match key::cook(&key) {
            Ok(name) => {
                let name = name.as_bytes();
                prop_assert!((1..=NAME_MAX).contains(&name.len()));
                prop_assert!(b"DSTE".contains(&name[0]));
                prop_assert!(name.iter().all(|byte| matches!(byte, 33..=46 | 48..=127)));
            }
            Err(error) if key.is_empty() => prop_assert_eq!(error, Errno::EINVAL),
            Err(error) => {
                prop_assert_eq!(error, Errno::ENAMETOOLONG);
                prop_assert!(key.len() >= 190);
            }
        }
    }

    #[test]
    fn every_key_of_up_to_189_bytes_has_a_name(key in any_key(1..=189)) {
        prop_assert!(key::cook(&key).is_ok());
    }

    /// Two objects in one file would give a reader another image's data.
    #[test]
    fn different_keys_have_different_names((a, b) in pair()) {
        if let (Ok(name_a), Ok(name_b)) = (key::cook(&a), key::cook(&b)) {
            prop_assert_eq!(a == b, name_a == name_b);
        }
    }

    #[test]
    fn hashing_pads_with_zeros(salt: u32, mut key in any_key(0..256)) {
        let hash = key::fscache_hash(salt, &key);
        key.resize(key.len().next_multiple_of(4), 0);
        prop_assert_eq!(key::fscache_hash(salt, &key), hash);
    }

    #[test]
    fn volume_names_never_panic(key in any_key(0..300)) {
        if let Ok(name) = key::volume_name(&key) {
            prop_assert_eq!(&name.as_bytes()[1..], &key[..]);
        }
    }
}
