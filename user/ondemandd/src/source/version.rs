// SPDX-License-Identifier: MIT OR Apache-2.0

//! What tells two versions of a remote blob apart.

use std::fmt;

use opendal::Metadata;
use sha2::Digest;
use sha2::Sha256;

/// The size of a remote blob, and what else its server says to tell it from another one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version {
    size: u64,
    mark: Mark,
}

/// What a server gives versions.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Mark {
    /// An ETag, with its quotes and its `W/`.
    Etag(String),
    /// A time, where there is no ETag.
    Modified(String),
    /// Neither: only the size is known.
    None,
}

impl Version {
    /// What a server says of a blob.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let etag = metadata.etag().map(|etag| Mark::Etag(etag.to_owned()));
        let modified = || {
            let time = metadata.last_modified()?;
            Some(Mark::Modified(time.to_string()))
        };
        Version {
            size: metadata.content_length(),
            mark: etag.or_else(modified).unwrap_or(Mark::None),
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
            Mark::Etag(etag) => Some(etag),
            Mark::Modified(_) | Mark::None => None,
        }
    }

    /// A number that another version most likely does not have; never 0. The same in every build of the
    /// program: the next worker may be a newer one.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let (kind, mark) = match &self.mark {
            Mark::Etag(etag) => (b"e", etag.as_bytes()),
            Mark::Modified(time) => (b"m", time.as_bytes()),
            Mark::None => (b"-", &b""[..]),
        };
        let sum = Sha256::new()
            .chain_update(self.size.to_le_bytes())
            .chain_update(kind)
            .chain_update(mark)
            .finalize();
        let mut number = [0; 8];
        number.copy_from_slice(&sum[..8]);
        u64::from_le_bytes(number).max(1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.size)?;
        // A server's words: nothing in them may look like a line of the log.
        match &self.mark {
            Mark::Etag(etag) => write!(f, ", ETag {}", etag.escape_debug()),
            Mark::Modified(time) => write!(f, ", of {time}"),
            Mark::None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use opendal::MetadataBuilder;

    use super::*;

    fn version(size: u64, etag: Option<&str>) -> Version {
        let mut metadata = MetadataBuilder::file(size);
        if let Some(etag) = etag {
            metadata.etag(etag);
        }
        Version::of(&metadata.build())
    }

    #[test]
    fn size_and_etag_count() {
        let one = version(1, Some("\"a\""));
        assert_eq!(one, version(1, Some("\"a\"")));
        assert_eq!(one.fingerprint(), version(1, Some("\"a\"")).fingerprint());
        for other in [
            version(2, Some("\"a\"")),
            version(1, Some("W/\"a\"")),
            version(1, None),
        ] {
            assert_ne!(one, other);
            assert_ne!(one.fingerprint(), other.fingerprint());
        }
        assert_eq!(one.to_string(), "1 bytes, ETag \\\"a\\\"");
        assert_eq!(version(7, None).to_string(), "7 bytes");
    }
}
