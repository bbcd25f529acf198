// SPDX-License-Identifier: MIT OR Apache-2.0

//! The attribute that tells what a file or directory of the store belongs to.

use ondemand_core::coherency::decode_object;
use ondemand_core::coherency::decode_volume;
use ondemand_core::coherency::encode_object;
use ondemand_core::coherency::encode_volume;
use ondemand_core::coherency::MAX;
use ondemand_core::errno::Errno;
use proptest::prelude::*;

/// Stores are exchanged with the C module. Would catch: another byte order, another field.
#[test]
fn bytes_are_those_of_the_c_module() {
    let object = encode_object(0x0102_0304_0506_0708);
    let expected = [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(object, expected);
    let volume = encode_volume(b"ab").unwrap();
    assert_eq!(volume.as_bytes(), b"\0\0\0\0ab");
    assert_eq!(encode_volume(b"").unwrap().as_bytes(), [0; 4]);
}

/// D9: what is too short or too long belongs to nothing. Would catch: a value that is read beyond its
/// end, or auxiliary data that is taken for none.
#[test]
fn d9_every_wrong_length_of_a_file_is_stale() {
    let mut value = encode_object(4096).to_vec();
    value.resize(MAX, 0);
    for len in (0..=MAX).filter(|&len| len != 18) {
        assert_eq!(decode_object(&value[..len]), None, "{len} bytes");
    }
    assert_eq!(decode_object(&value[..18]), Some(4096));
}

#[test]
fn d9_every_wrong_length_of_a_volume_is_stale() {
    for len in 0..4 {
        assert_eq!(decode_volume(&[0; 4][..len]), None, "{len} bytes");
    }
    let whole = encode_volume(b"abc").unwrap();
    for len in 4..7 {
        let data = decode_volume(&whole.as_bytes()[..len]);
        assert_ne!(data, Some(&b"abc"[..]), "{len} bytes");
    }
}

/// All values of the two bytes after the numbers: type 1, and any content but 4 (dirty).
#[test]
fn type_and_content_decide() {
    for kind in 0..=u8::MAX {
        for content in 0..=u8::MAX {
            let mut value = encode_object(7).to_vec();
            (value[16], value[17]) = (kind, content);
            let expected = (kind == 1 && content != 4).then_some(7);
            assert_eq!(
                decode_object(&value),
                expected,
                "type {kind}, content {content}"
            );
        }
    }
}

/// The C module writes the zero point of a netfs there and does not look at it in on-demand mode.
#[test]
fn the_zero_point_is_not_looked_at() {
    for at in 8..16 {
        let mut value = encode_object(7).to_vec();
        value[at] = 0xff;
        assert_eq!(decode_object(&value), Some(7), "byte {at}");
    }
}

#[test]
fn each_byte_of_a_volumes_header_decides() {
    for at in 0..4 {
        let mut value = encode_volume(b"x").unwrap().as_bytes().to_vec();
        value[at] = 1;
        assert_eq!(decode_volume(&value), None, "byte {at}");
    }
}

/// fscache's limit is 255 bytes, so that nothing that it can ask for is refused.
#[test]
fn over_long_coherency_data_is_refused() {
    for len in [0, 255, MAX - 4] {
        let data = vec![0xa5; len];
        let value = encode_volume(&data).unwrap();
        assert_eq!(value.as_bytes().len(), len + 4);
        assert_eq!(decode_volume(value.as_bytes()), Some(&data[..]));
    }
    for len in [MAX - 3, MAX, 4096] {
        assert_eq!(encode_volume(&vec![0; len]), Err(Errno::ERANGE), "{len}");
    }
}

proptest! {
    #[test]
    fn files_round_trip(size: u64, other: u64) {
        let value = encode_object(size);
        prop_assert_eq!(decode_object(&value), Some(size));
        prop_assert_eq!(decode_object(&value) == Some(other), size == other);
    }

    #[test]
    fn volumes_round_trip(data in prop::collection::vec(any::<u8>(), 0..=255)) {
        let value = encode_volume(&data).unwrap();
        prop_assert_eq!(decode_volume(value.as_bytes()), Some(&data[..]));
    }

    /// Stale content: one wrong bit of size, type or length is noticed.
    #[test]
    fn a_flipped_bit_of_the_size_is_another_size(size: u64, bit in 0..64usize) {
        let mut value = encode_object(size).to_vec();
        value[bit / 8] ^= 0x80 >> (bit % 8);
        prop_assert_ne!(decode_object(&value), Some(size));
    }
}
