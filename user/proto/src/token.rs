// SPDX-License-Identifier: MIT OR Apache-2.0

//! What tells one version of an object from another.

use std::fmt;
use std::str::FromStr;

/// The most bytes of a [`Token`]: a SHA-512, or a SHA-256 and as much again.
pub const MAX_TOKEN: usize = 64;

/// A name for the bytes of one version of an object, 1 to [`MAX_TOKEN`] bytes; its text is hexadecimal, in
/// either case.
///
/// The kernel compares tokens, and makes nothing of them. So two versions must never have the same one, and a
/// hash over what identifies the version is what a daemon wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    bytes: [u8; MAX_TOKEN],
    len: usize,
}

/// Why a text or bytes are no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoToken;

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a token is 1 to {MAX_TOKEN} bytes, two hexadecimal digits each"
        )
    }
}

impl std::error::Error for NoToken {}

impl Token {
    /// A token of these bytes.
    ///
    /// # Errors
    ///
    /// [`NoToken`] if there are none, or too many.
    pub fn new(bytes: &[u8]) -> Result<Self, NoToken> {
        let len = bytes.len();
        let mut token = Token {
            bytes: [0; MAX_TOKEN],
            len,
        };
        if bytes.is_empty() {
            return Err(NoToken);
        }
        token
            .bytes
            .get_mut(..len)
            .ok_or(NoToken)?
            .copy_from_slice(bytes);
        Ok(token)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let digits = text.as_bytes();
        if digits.len() % 2 != 0 || digits.len() > 2 * MAX_TOKEN {
            return Err(NoToken);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let bytes: Option<Vec<u8>> = digits
            .chunks_exact(2)
            .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
            .collect();
        Token::new(&bytes.ok_or(NoToken)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_text() {
        let longest = "c3".repeat(MAX_TOKEN);
        for text in ["00", "0fA0", longest.as_str()] {
            let token: Token = text.parse().unwrap();
            assert_eq!(token.to_string(), text.to_lowercase());
            assert_eq!(Token::new(token.as_bytes()), Ok(token));
        }
        assert_eq!("0fA0".parse::<Token>(), "0Fa0".parse::<Token>());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = "c3".repeat(MAX_TOKEN + 1);
        for text in ["", "0", "000", "0x", "g0", "+1", " 00", long.as_str()] {
            assert_eq!(text.parse::<Token>(), Err(NoToken), "{text}");
        }
        assert_eq!(Token::new(&[]), Err(NoToken));
        assert_eq!(Token::new(&[1; MAX_TOKEN + 1]), Err(NoToken));
    }
}
