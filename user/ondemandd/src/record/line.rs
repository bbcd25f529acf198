// SPDX-License-Identifier: MIT OR Apache-2.0

//! A line of the record: `SUM WORD ...`, where SUM is of all that follows it.
//!
//! ```text
//! 0123456789abcdef ondemandd-versions 1 INODE@TIME        the first: of which file it is
//! 0123456789abcdef carried old                            or `lost`
//! 0123456789abcdef version NAME TOKEN SIZE FLAGS WHAT     FLAGS: `s` sole, `m` manifest, `-` neither
//! 0123456789abcdef changed NAME WHAT
//! 0123456789abcdef forget NAME
//! ```
//!
//! NAME is where the object lies below `cache/`. In names and WHAT, what is not printable ASCII is `%` and two hex
//! digits, and so is `%`; in names a blank is as well.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use sha2::Digest;
use sha2::Sha256;

use super::Carried;
use super::Entry;
use crate::cull::oldest::Place;

/// So much of what a version is, is told, in bytes: it is for people.
const LONGEST_WHAT: usize = 300;
const FORMAT: &str = "ondemandd-versions 1";

/// An object, by where it lies in the store; by its keys, if they have no place there.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(String);

/// What a line says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Line {
    First(String),
    Carried(Carried),
    Version(Name, Entry),
    Changed(Name, String),
    Forget(Name),
}

impl Name {
    /// Of the object with these keys.
    #[must_use]
    pub fn of(volume_key: &[u8], cookie_key: &[u8]) -> Self {
        let place = ondemand_core::layout::object_path(volume_key, cookie_key);
        let parts = match &place {
            Ok(path) => [path.volume.as_bytes(), &path.fanout, path.file.as_bytes()],
            // It has no file, on any module.
            Err(_) => [&b"-"[..], volume_key, cookie_key],
        };
        Self::from_parts(parts)
    }

    /// Of what lies there.
    pub(crate) fn at(place: &Place) -> Self {
        Self::from_parts([
            place.volume.as_bytes(),
            place.fanout.as_bytes(),
            place.name.as_bytes(),
        ])
    }

    fn from_parts(parts: [&[u8]; 3]) -> Self {
        let mut name = String::new();
        for part in parts {
            if !name.is_empty() {
                name.push('/');
            }
            // No name of a file has a slash; a key may.
            escape(&mut name, part, |byte| {
                byte.is_ascii_graphic() && byte != b'/'
            });
        }
        Name(name)
    }

    /// Where it lies, if it has a place.
    pub(crate) fn place(&self) -> Option<Place> {
        let mut parts = self.0.split('/').map(unescape);
        let mut next = || parts.next().flatten().map(OsString::from_vec);
        let place = Place {
            volume: Arc::new(next()?),
            fanout: Arc::new(next()?),
            name: next()?,
        };
        (place.volume.as_bytes().first() == Some(&b'I')).then_some(place)
    }

    /// Of its text; `None` for what can be none, such as one that leads out of the store.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_part = |part: &str| {
            let part = unescape(part);
            part.is_some_and(|part| {
                !matches!(&part[..], b"" | b"." | b"..")
                    && !part.iter().any(|byte| matches!(byte, 0 | b'/'))
            })
        };
        let is_keys = text.starts_with("-/");
        let is_name = text.split('/').count() == 3
            && text
                .split('/')
                .all(|part| is_part(part) || (is_keys && unescape(part).is_some()));
        is_name.then(|| Name(text.to_owned()))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Line {
    /// With its newline.
    pub(super) fn to_text(&self) -> String {
        let body = match self {
            Line::First(own) => format!("{FORMAT} {own}"),
            Line::Carried(Carried::Old) => "carried old".to_owned(),
            Line::Carried(Carried::Lost) => "carried lost".to_owned(),
            Line::Version(name, entry) => {
                let flags = match (entry.sole, entry.manifest) {
                    (true, true) => "sm",
                    (true, false) => "s",
                    (false, true) => "m",
                    (false, false) => "-",
                };
                format!(
                    "version {name} {} {} {flags} {}",
                    entry.token,
                    entry.size,
                    text_of(&entry.what)
                )
            }
            Line::Changed(name, what) => format!("changed {name} {}", text_of(what)),
            Line::Forget(name) => format!("forget {name}"),
        };
        format!("{} {body}\n", sum_of(body.as_bytes()))
    }

    /// Without its newline.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (sum, body) = line.split_once(' ')?;
        if sum != sum_of(body.as_bytes()) {
            return None;
        }
        if let Some(own) = body.strip_prefix(FORMAT) {
            return Some(Line::First(own.strip_prefix(' ')?.to_owned()));
        }
        let (word, rest) = body.split_once(' ')?;
        match word {
            "carried" if rest == "old" => Some(Line::Carried(Carried::Old)),
            "carried" if rest == "lost" => Some(Line::Carried(Carried::Lost)),
            "forget" => Some(Line::Forget(Name::parse(rest)?)),
            "changed" => {
                let (name, what) = rest.split_once(' ')?;
                Some(Line::Changed(Name::parse(name)?, what_of(what)?))
            }
            "version" => {
                let mut parts = rest.splitn(5, ' ');
                let mut next = || parts.next();
                let (name, token, size, flags) = (next()?, next()?, next()?, next()?);
                let (sole, manifest) = match flags {
                    "sm" => (true, true),
                    "s" => (true, false),
                    "m" => (false, true),
                    "-" => (false, false),
                    _ => return None,
                };
                let entry = Entry {
                    token: token.parse().ok()?,
                    size: size.parse().ok()?,
                    sole,
                    manifest,
                    what: what_of(next()?)?,
                    changed: None,
                };
                Some(Line::Version(Name::parse(name)?, entry))
            }
            _ => None,
        }
    }
}

fn sum_of(body: &[u8]) -> String {
    let sum = Sha256::digest(body);
    let hex = sum.iter().take(8).map(|byte| format!("{byte:02x}"));
    hex.collect()
}

fn text_of(what: &str) -> String {
    let mut end = what.len().min(LONGEST_WHAT);
    while !what.is_char_boundary(end) {
        end -= 1;
    }
    let mut text = String::new();
    escape(&mut text, &what.as_bytes()[..end], |byte| {
        byte == b' ' || byte.is_ascii_graphic()
    });
    text
}

fn what_of(text: &str) -> Option<String> {
    String::from_utf8(unescape(text)?).ok()
}

fn escape(text: &mut String, bytes: &[u8], is_plain: impl Fn(u8) -> bool) {
    use std::fmt::Write;
    for byte in bytes {
        if *byte != b'%' && is_plain(*byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(text, "%{byte:02x}");
        }
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use cachefiles_proto::Token;
    use proptest::prelude::*;

    use super::*;

    fn lines() -> impl Strategy<Value = Line> {
        let keys = (
            prop::collection::vec(any::<u8>(), 0..20),
            prop::collection::vec(any::<u8>(), 0..60),
        );
        let name = keys.prop_map(|(volume, cookie)| {
            // What EROFS cannot have is no matter, but for the empty part.
            let (volume, cookie) = ([b"v", &volume[..]].concat(), [b"c", &cookie[..]].concat());
            Name::of(&volume, &cookie)
        });
        let token = prop::collection::vec(any::<u8>(), 1..=64);
        let what = "\\PC{0,80}|[ -~\\n%]{0,80}";
        (name, token, any::<(bool, bool)>(), what, 0..5).prop_map(
            |(name, token, (sole, manifest), what, kind)| match kind {
                0 => Line::First("12@3.000000004".to_owned()),
                1 => Line::Carried(if sole { Carried::Old } else { Carried::Lost }),
                2 => Line::Changed(name, what),
                3 => Line::Forget(name),
                _ => {
                    let entry = Entry {
                        token: Token::new(&token).unwrap(),
                        size: u64::MAX / 3,
                        sole,
                        manifest,
                        what,
                        changed: None,
                    };
                    Line::Version(name, entry)
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written(line in lines()) {
            let text = line.to_text();
            let whole = text.strip_suffix('\n').unwrap();
            prop_assert!(!whole.contains('\n') && whole.is_ascii());
            prop_assert_eq!(Line::parse(whole.as_bytes()), Some(line));
        }

        #[test]
        fn a_line_that_is_damaged_is_none(line in lines(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut text = line.to_text().into_bytes();
            text.pop();
            let at = at.index(text.len());
            text[at] ^= 1_u8 << bit;
            prop_assert_eq!(Line::parse(&text), None);
            text[at] ^= 1_u8 << bit;
            text.truncate(at);
            prop_assert_eq!(Line::parse(&text), None);
        }

        #[test]
        fn two_objects_have_two_names(
            one in (prop::collection::vec(any::<u8>(), 0..4), prop::collection::vec(any::<u8>(), 0..4)),
            other in (prop::collection::vec(any::<u8>(), 0..4), prop::collection::vec(any::<u8>(), 0..4)),
        ) {
            let same = one == other;
            prop_assert_eq!(Name::of(&one.0, &one.1) == Name::of(&other.0, &other.1), same);
        }
    }

    #[test]
    fn a_name_is_a_place() {
        let name = Name::of(b"erofs,web", b"web/image");
        let place = name.place().unwrap();
        assert_eq!(*place.volume, OsString::from("Ierofs,web"));
        assert_eq!(Name::at(&place), name);
        let plain = Name::of(b"erofs,a", b"a");
        assert!(plain.to_string().starts_with("Ierofs,a/@"), "{plain}");
        assert!(plain.to_string().ends_with("/Da"), "{plain}");
        let long = Name::of(b"erofs,a", &[b'x'; 255]);
        assert_eq!(long.place(), None, "{long}");
    }

    #[test]
    fn long_words_are_cut() {
        let what = "\u{e4}".repeat(1000);
        let name = Name::of(b"v", b"c");
        let text = Line::Changed(name, what).to_text();
        assert!(text.len() < 1100, "{}", text.len());
        assert!(Line::parse(text.trim_end().as_bytes()).is_some());
    }
}
