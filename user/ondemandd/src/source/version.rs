// SPDX-License-Identifier: MIT OR Apache-2.0

//! What tells two versions of a remote blob apart.

use std::fmt;

use http::header;
use http::HeaderMap;
use opendal::raw::parse_last_modified;
use opendal::Metadata;

use super::token::Identity;

/// The size of a remote blob, and what else its server says to tell it from another one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version {
    size: u64,
    mark: Mark,
}

/// What a server gives versions.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Mark {
    /// An ETag, with its quotes.
    Etag(String),
    /// A weak ETag, with its `W/`, and a time if there is one: a weak one promises the same meaning and not the
    /// same bytes, so all that there is counts.
    Weak(String, Option<String>),
    /// A time, in seconds, where there is no ETag.
    Modified(String),
    /// Neither: only the size is known.
    None,
}

impl Version {
    /// What a server says of a blob.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let modified = metadata.last_modified().map(|time| time.to_string());
        Version {
            size: metadata.content_length(),
            mark: Mark::new(metadata.etag(), modified),
        }
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The ETag, if the server gives any.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        match &self.mark {
            Mark::Etag(etag) | Mark::Weak(etag, _) => Some(etag),
            Mark::Modified(_) | Mark::None => None,
        }
    }

    /// What this version is called.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let size = self.size.to_le_bytes();
        match &self.mark {
            Mark::Etag(etag) => Identity::new("etag", &[&size, etag.as_bytes()], self),
            Mark::Weak(etag, modified) => {
                let modified = modified.as_deref().unwrap_or_default();
                let parts = [&size[..], etag.as_bytes(), modified.as_bytes()];
                Identity::new("weak etag", &parts, self)
            }
            Mark::Modified(time) => Identity::new("modified", &[&size, time.as_bytes()], self),
            Mark::None => Identity::of_size(self.size),
        }
    }

    /// What the head of an answer says against its being of this version, if anything: ETag and time; the size
    /// stands elsewhere there.
    pub(super) fn differs_from(&self, headers: &HeaderMap) -> Option<String> {
        let etag = headers.get(header::ETAG).and_then(|it| it.to_str().ok());
        let modified = || {
            let time = parse_last_modified(headers).ok().flatten();
            time.map(|time| time.to_string())
        };
        let now = match &self.mark {
            Mark::None => return None,
            Mark::Etag(_) => Mark::new(etag, None),
            Mark::Weak(..) => Mark::new(etag, modified()),
            Mark::Modified(_) => Mark::new(None, modified()),
        };
        (now != self.mark).then(|| format!("it was {}, and the answer is {now}", self.mark))
    }
}

impl Mark {
    fn new(etag: Option<&str>, modified: Option<String>) -> Self {
        match (etag, modified) {
            (Some(etag), modified) if etag.starts_with("W/") => {
                Mark::Weak(etag.to_owned(), modified)
            }
            (Some(etag), _) => Mark::Etag(etag.to_owned()),
            (None, Some(time)) => Mark::Modified(time),
            (None, None) => Mark::None,
        }
    }
}

/// A server's words: nothing in them may look like a line of the log.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Etag(etag) | Mark::Weak(etag, None) => {
                write!(f, "ETag {}", etag.escape_debug())
            }
            Mark::Weak(etag, Some(time)) => write!(f, "ETag {} of {time}", etag.escape_debug()),
            Mark::Modified(time) => write!(f, "of {time}"),
            Mark::None => f.write_str("without a mark"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.size)?;
        match &self.mark {
            Mark::None => Ok(()),
            mark => write!(f, ", {mark}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use opendal::MetadataBuilder;

    use super::*;

    const ONE: &str = "Tue, 15 Nov 1994 12:45:26 GMT";
    const TWO: &str = "Tue, 15 Nov 1994 12:45:27 GMT";

    fn headers(etag: Option<&str>, modified: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::ETAG, etag), (header::LAST_MODIFIED, modified)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        headers
    }

    fn version(size: u64, etag: Option<&str>, modified: Option<&str>) -> Version {
        let mut metadata = MetadataBuilder::file(size);
        if let Some(etag) = etag {
            metadata.etag(etag);
        }
        if let Some(time) = parse_last_modified(&headers(None, modified)).unwrap() {
            metadata.last_modified(time);
        }
        Version::of(&metadata.build())
    }

    #[test]
    fn size_and_mark_count() {
        let versions = [
            version(1, Some("\"a\""), None),
            version(2, Some("\"a\""), None),
            version(1, Some("W/\"a\""), None),
            version(1, Some("W/\"a\""), Some(ONE)),
            version(1, Some("W/\"a\""), Some(TWO)),
            version(1, None, Some(ONE)),
            version(1, None, Some(TWO)),
            version(1, None, None),
        ];
        for (index, one) in versions.iter().enumerate() {
            for other in &versions[..index] {
                assert_ne!(one.identity().token, other.identity().token);
            }
            assert_eq!(one.identity(), one.clone().identity());
        }
        // A strong ETag says all; servers behind one name have different times of the same bytes.
        let timed = version(1, Some("\"a\""), Some(ONE));
        assert_eq!(timed.identity(), versions[0].identity());
        assert_eq!(versions[0].to_string(), "1 bytes, ETag \\\"a\\\"");
        assert_eq!(versions[7].to_string(), "1 bytes");
        assert_eq!(versions[7].identity(), Identity::of_size(1));
    }

    #[test]
    fn an_answer_is_of_a_version() {
        let same = |version: Version, etag, modified| {
            version.differs_from(&headers(etag, modified)).is_none()
        };
        let strong = || version(1, Some("\"a\""), Some(ONE));
        assert!(same(strong(), Some("\"a\""), Some(TWO)));
        assert!(!same(strong(), Some("\"b\""), Some(ONE)));
        assert!(!same(strong(), Some("W/\"a\""), Some(ONE)));
        assert!(!same(strong(), None, Some(ONE)));
        let weak = || version(1, Some("W/\"a\""), Some(ONE));
        assert!(same(weak(), Some("W/\"a\""), Some(ONE)));
        assert!(!same(weak(), Some("W/\"a\""), Some(TWO)));
        assert!(!same(weak(), Some("W/\"a\""), None));
        let timed = || version(1, None, Some(ONE));
        assert!(same(timed(), Some("\"new\""), Some(ONE)));
        assert!(!same(timed(), None, Some(TWO)));
        assert!(!same(timed(), None, None));
        assert!(same(version(1, None, None), Some("\"a\""), Some(ONE)));
    }
}
