// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the attribute `user.CacheFiles.identity` holds: which file carries it, and which version of an
//! object is in that file.
//!
//! On disk, all numbers big-endian: form (1 byte, 1), inode number (8), its generation (4), when it was made
//! (seconds 8, nanoseconds 4; 0 if the file system does not tell), bytes of the token (1), the token.
//!
//! A file that was copied carries the attribute of another file: what is a hole in the original may be
//! zeros in the copy. The generation tells two files apart that have one inode number at different times; Btrfs
//! counts it from a small number, so the time is there as well.

/// Bytes of the longest token.
pub const MAX_TOKEN: usize = 64;

/// Bytes of the longest value.
pub const MAX: usize = HEADER + MAX_TOKEN;

const HEADER: usize = 1 + FILE + 1;
const FILE: usize = 8 + 4 + 8 + 4;
const FORM: u8 = 1;

/// What a daemon calls a version of an object: up to [`MAX_TOKEN`] bytes. None stand for a version that it
/// does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    bytes: [u8; MAX_TOKEN],
    len: u8,
}

impl Token {
    /// The version is not told.
    pub const UNTOLD: Token = Token {
        bytes: [0; MAX_TOKEN],
        len: 0,
    };

    /// The token of these bytes; `None` if they are too many.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let mut token = Token {
            len: u8::try_from(bytes.len()).ok()?,
            ..Token::UNTOLD
        };
        token.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(token)
    }

    /// The token of a text: 2 to 128 hexadecimal digits, an even number of them. `None` for anything else.
    pub fn of_text(text: &[u8]) -> Option<Self> {
        let mut token = Token::UNTOLD;
        if text.is_empty() || text.len() % 2 != 0 {
            return None;
        }
        for (index, pair) in text.chunks_exact(2).enumerate() {
            *token.bytes.get_mut(index)? = pair.iter().try_fold(0, |byte, &digit| {
                let digit = char::from(digit).to_digit(16)?;
                u8::try_from(digit).ok().map(|digit| byte * 16 + digit)
            })?;
        }
        token.len = u8::try_from(text.len() / 2).ok()?;
        Some(token)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether the version is told.
    pub fn is_told(&self) -> bool {
        self.len != 0
    }
}

/// What a daemon serves as an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Bytes, at most `i64::MAX`. Whether the backing file system can hold a file of that size is not known
    /// here.
    pub size: u64,
    /// Which version it is, if the daemon has told.
    pub token: Token,
}

/// Which file it is, of all that its file system has ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The inode number.
    pub inode: u64,
    /// Its generation.
    pub generation: u32,
    /// When it was made, in seconds since 1970; 0 if that is not known.
    pub made_seconds: i64,
    /// The same, the part below a second in nanoseconds.
    pub made_nanoseconds: u32,
}

impl FileId {
    fn encode(&self) -> [u8; FILE] {
        let mut bytes = [0; FILE];
        bytes[..8].copy_from_slice(&self.inode.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.generation.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.made_seconds.to_be_bytes());
        bytes[20..].copy_from_slice(&self.made_nanoseconds.to_be_bytes());
        bytes
    }
}

/// A value of the attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    bytes: [u8; MAX],
    len: usize,
}

impl Value {
    /// The value as it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The value for `file`, which holds the version `token`.
pub fn encode(file: &FileId, token: &Token) -> Value {
    let mut bytes = [0; MAX];
    bytes[0] = FORM;
    bytes[1..=FILE].copy_from_slice(&file.encode());
    bytes[FILE + 1] = token.len;
    bytes[HEADER..].copy_from_slice(&token.bytes);
    let len = HEADER + usize::from(token.len);
    Value { bytes, len }
}

/// What is in a stored file, beside what a daemon says of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The version that the daemon serves; or neither says which.
    Same,
    /// The daemon does not say which version it serves: what is stored counts, and is of no known version from now on.
    NotTold,
    /// Nothing says which version is stored, and the daemon serves a certain one: the file is stale.
    Unknown,
    /// Another version than the daemon serves: the file is stale.
    Other,
    /// It is a copy of a stored file, or its attribute is of no known form: the file is stale.
    Copy,
}

/// Compares what is stored in `file` with the version that a daemon tells. `value`: of its attribute, `None` if
/// it has none, as files that the C module or an older one has made.
pub fn compare(value: Option<&[u8]>, file: &FileId, told: &Token) -> Match {
    let Some(value) = value else {
        return if told.is_told() {
            Match::Unknown
        } else {
            Match::Same
        };
    };
    let stored = match value {
        [FORM, rest @ ..] => rest
            .strip_prefix(&file.encode())
            .and_then(|rest| rest.split_first())
            .filter(|(len, token)| usize::from(**len) == token.len())
            .and_then(|(_, token)| Token::of_bytes(token)),
        _ => None,
    };
    match stored {
        None => Match::Copy,
        Some(stored) if stored == *told => Match::Same,
        Some(_) if !told.is_told() => Match::NotTold,
        Some(stored) if !stored.is_told() => Match::Unknown,
        Some(_) => Match::Other,
    }
}
