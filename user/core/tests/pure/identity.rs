// SPDX-License-Identifier: MIT OR Apache-2.0

//! The attribute that tells which file carries it, and which version is in that file.

use ondemand_core::identity::compare;
use ondemand_core::identity::encode;
use ondemand_core::identity::FileId;
use ondemand_core::identity::Match;
use ondemand_core::identity::Token;
use ondemand_core::identity::MAX;
use proptest::prelude::*;

const FILE: FileId = FileId {
    inode: 0x0102_0304_0506_0708,
    generation: 0x090a_0b0c,
    made_seconds: 0x0d0e,
    made_nanoseconds: 0x0f10,
};

fn token(bytes: &[u8]) -> Token {
    Token::of_bytes(bytes).unwrap()
}

/// Stores outlive modules. Would catch: another order of fields or bytes.
#[test]
fn bytes_are_what_the_protocol_says() {
    let expected = [
        1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0, 0, 0, 13, 14, 0, 0, 15, 16, 2, 0xab,
        0xcd,
    ];
    assert_eq!(encode(&FILE, &token(&[0xab, 0xcd])).as_bytes(), expected);
    let untold = encode(&FILE, &Token::UNTOLD);
    assert_eq!(untold.as_bytes()[..25], expected[..25]);
    assert_eq!(untold.as_bytes()[25..], [0]);
    assert_eq!(encode(&FILE, &token(&[7; 64])).as_bytes().len(), MAX);
}

/// Each row of the table in docs/protocol.md.
#[test]
fn the_table_of_the_protocol() {
    let (a, b) = (token(b"a"), token(b"b"));
    let untold = Token::UNTOLD;
    for (stored, told, expected) in [
        (None, untold, Match::Same),
        (None, a, Match::Unknown),
        (Some(untold), untold, Match::Same),
        (Some(untold), a, Match::Unknown),
        (Some(a), a, Match::Same),
        (Some(a), b, Match::Other),
        (Some(a), untold, Match::NotTold),
    ] {
        let value = stored.map(|stored| encode(&FILE, &stored));
        let value = value.as_ref().map(|value| value.as_bytes());
        assert_eq!(
            compare(value, &FILE, &told),
            expected,
            "{stored:?} {told:?}"
        );
    }
}

/// Would catch: a part of what makes a file that file which is not compared.
#[test]
fn a_copy_is_another_file() {
    let others = [
        FileId { inode: 1, ..FILE },
        FileId {
            generation: 1,
            ..FILE
        },
        FileId {
            made_seconds: 1,
            ..FILE
        },
        FileId {
            made_nanoseconds: 1,
            ..FILE
        },
    ];
    for told in [Token::UNTOLD, token(b"a")] {
        let value = encode(&FILE, &told);
        for other in others {
            assert_eq!(compare(Some(value.as_bytes()), &other, &told), Match::Copy);
        }
        assert_eq!(compare(Some(value.as_bytes()), &FILE, &told), Match::Same);
    }
}

/// What is too short, too long or of another form belongs to no file. Would catch: a length that is not checked.
#[test]
fn other_forms_are_no_version() {
    for told in [Token::UNTOLD, token(b"a"), token(&[9; 64])] {
        let value = encode(&FILE, &told);
        let whole = value.as_bytes();
        for len in 0..whole.len() {
            assert_eq!(
                compare(Some(&whole[..len]), &FILE, &told),
                Match::Copy,
                "{len}"
            );
        }
        let longer = [whole, &[0]].concat();
        assert_eq!(compare(Some(&longer), &FILE, &told), Match::Copy);
        let mut other = whole.to_vec();
        other[0] = 2;
        assert_eq!(compare(Some(&other), &FILE, &told), Match::Copy);
    }
}

proptest! {
    /// No value is taken for another version or another file than those that it was made for.
    #[test]
    fn a_value_is_of_one_file_and_one_version(
        stored in prop::collection::vec(any::<u8>(), 1..=64),
        told in prop::collection::vec(any::<u8>(), 1..=64),
        inode: u64,
    ) {
        let value = encode(&FILE, &token(&stored));
        let expected = if stored == told { Match::Same } else { Match::Other };
        prop_assert_eq!(compare(Some(value.as_bytes()), &FILE, &token(&told)), expected);
        let copy = FileId { inode, ..FILE };
        prop_assume!(copy != FILE);
        prop_assert_eq!(compare(Some(value.as_bytes()), &copy, &token(&stored)), Match::Copy);
    }

    #[test]
    fn any_bytes_are_compared(value in prop::collection::vec(any::<u8>(), 0..=MAX + 1)) {
        prop_assert_eq!(compare(Some(&value), &FILE, &token(b"a")), Match::Copy);
    }
}
