// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a version of a blob is called: a token, which no other version has.
//!
//! It is a digest of what identifies the version. Which kind of thing that is goes into it first, and each part
//! with its length, so that no two kinds have the same token, whatever a server or a file system says.

use std::fmt;

use cachefiles_proto::Token;
use sha2::Digest;
use sha2::Sha256;

/// Begins what is digested; another meaning of it takes another number, and all is fetched again then.
const FORMAT: &[u8] = b"ondemandd version 1";

/// Which version of a blob there is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// What it is called.
    pub token: Token,
    /// What it is, for people.
    pub what: String,
}

impl Identity {
    /// A version that these parts tell from any other of this kind.
    #[must_use]
    pub fn new(kind: &str, parts: &[&[u8]], what: &impl fmt::Display) -> Self {
        Identity {
            token: token(kind, parts),
            what: what.to_string(),
        }
    }

    /// One that is told by its size alone.
    #[must_use]
    pub fn of_size(size: u64) -> Self {
        Self::new(
            "size",
            &[&size.to_le_bytes()],
            &format_args!("{size} bytes"),
        )
    }
}

fn token(kind: &str, parts: &[&[u8]]) -> Token {
    let mut sum = Sha256::new();
    for part in [FORMAT, kind.as_bytes()].iter().chain(parts) {
        let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
        sum.update(len.to_le_bytes());
        sum.update(part);
    }
    Token::new(&sum.finalize()).expect("a SHA-256 is not too long for a token")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whoever changes it has all caches fetched anew.
    #[test]
    fn a_token_stays_what_it_is() {
        let size = Identity::of_size(4096);
        assert_eq!(size.what, "4096 bytes");
        assert_eq!(
            size.token.to_string(),
            "4d0dbb2b5bdd1754910e5a71cea5b656b1c5202813f6b0eb3cb570b0ce361e11"
        );
    }

    proptest! {
        #[test]
        fn other_parts_have_another_token(
            one in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..4),
            other in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..4),
            kinds in ("[ab]{1,2}", "[ab]{1,2}"),
        ) {
            let token = |kind: &str, parts: &[Vec<u8>]| {
                let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                token(kind, &parts)
            };
            let same = one == other && kinds.0 == kinds.1;
            prop_assert_eq!(token(&kinds.0, &one) == token(&kinds.1, &other), same);
        }
    }
}
