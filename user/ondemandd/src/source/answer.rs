// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether the head of an answer fits what was asked, and how long its body may be.

use http::header;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use opendal::Error;
use opendal::ErrorKind;

use super::version::Version;
use super::Check;

/// So much is read of an answer that is an error: enough for what an S3 server says of it.
const MOST_OF_AN_ERROR: u64 = 4096;

/// What all answers about a blob have to be of, each by itself: one read may take several of them, when a body
/// breaks and what is missing is asked for again.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) version: Version,
    pub(super) check: Check,
}

impl Expected {
    /// Holds the head of an answer with data against it.
    pub(super) fn check(&self, headers: &HeaderMap) -> opendal::Result<()> {
        let changed = |message| Err(Error::new(ErrorKind::ConditionNotMatch, message));
        let sent = headers.get(header::CONTENT_RANGE);
        let sent = sent.and_then(|range| range.to_str().ok());
        // A server that does not know it says `*`.
        let total = sent.and_then(|range| range.rsplit_once('/')?.1.parse::<u64>().ok());
        let size = self.version.size();
        if let Some(total) = total.filter(|total| *total != size) {
            return changed(format!("it was {size} bytes, and the answer is of {total}"));
        }
        match self.version.differs_from(headers) {
            Some(message) if self.check == Check::Version => changed(message),
            _ => Ok(()),
        }
    }
}

/// What a request asks for, as far as the answer is held against it.
pub(super) struct Asked {
    /// GET, and not HEAD.
    data: bool,
    /// Offset of the first byte, and of the last.
    range: Option<(u64, u64)>,
    pub(super) etag: Option<String>,
}

impl Asked {
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> opendal::Result<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let range = match text(header::RANGE) {
            Some(range) => {
                let bounds = range.strip_prefix("bytes=").and_then(bounds);
                Some(bounds.ok_or_else(|| unexpected("a range without bounds"))?)
            }
            None => None,
        };
        Ok(Asked {
            data: *method != Method::HEAD,
            range,
            etag: text(header::IF_MATCH).map(str::to_owned),
        })
    }

    /// Holds the head of an answer against the question; says how long its body may be.
    pub(super) fn check(&self, status: StatusCode, headers: &HeaderMap) -> opendal::Result<Limit> {
        let code = status.as_u16();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(unexpected(format!(
                "the server answers {code}, a redirect that is not followed"
            )));
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(unexpected(format!("the server answers {code}")).set_temporary());
        }
        if !status.is_success() {
            return Ok(Limit::Cut(MOST_OF_AN_ERROR));
        }
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|name| *name != "identity") {
            let encoding = encoding.escape_debug();
            return Err(unexpected(format!("the server sends data as {encoding}")));
        }
        if !self.data {
            return Ok(Limit::Cut(0));
        }
        if let Some(etag) = &self.etag {
            let now = text(header::ETAG);
            if now != Some(etag) {
                let now = now.map_or("none".into(), |now| now.escape_debug().to_string());
                let message = format!("its ETag was {} and is {now}", etag.escape_debug());
                return Err(Error::new(ErrorKind::ConditionNotMatch, message));
            }
        }
        let Some((first, last)) = self.range else {
            return Err(unexpected("a request for all of a blob"));
        };
        if status != StatusCode::PARTIAL_CONTENT {
            return Err(unexpected(format!(
                "asked for a range, the server answers {code}: it does not know ranges"
            )));
        }
        let sent = text(header::CONTENT_RANGE).unwrap_or("none");
        let bounds = sent
            .strip_prefix("bytes ")
            .and_then(|range| bounds(range.split('/').next()?));
        if bounds != Some((first, last)) {
            return Err(unexpected(format!(
                "asked for the bytes {first}-{last}, the server sends {}",
                sent.escape_debug()
            )));
        }
        let asked = (last - first).saturating_add(1);
        if let Some(sent) = text(header::CONTENT_LENGTH) {
            if sent.parse() != Ok(asked) {
                let sent = sent.escape_debug();
                return Err(unexpected(format!(
                    "asked for {asked} bytes, the server sends {sent}"
                )));
            }
        }
        Ok(Limit::Exactly(asked))
    }
}

/// Reads `FIRST-LAST`.
fn bounds(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// How long a body may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Limit {
    /// Just so long.
    Exactly(u64),
    /// The rest is of no interest.
    Cut(u64),
}

impl Limit {
    pub(super) fn bytes(self) -> u64 {
        match self {
            Limit::Exactly(bytes) | Limit::Cut(bytes) => bytes,
        }
    }

    pub(super) fn exactly(self) -> Option<u64> {
        match self {
            Limit::Exactly(bytes) => Some(bytes),
            Limit::Cut(_) => None,
        }
    }
}

/// An error that another try would not help.
pub(super) fn unexpected(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unexpected, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &str, etag: Option<&str>) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        if let Some(etag) = etag {
            headers.insert(header::IF_MATCH, etag.parse().unwrap());
        }
        Asked::of(&Method::GET, &headers).unwrap()
    }

    fn check(asked: &Asked, status: u16, lines: &[(&'static str, &str)]) -> Result<Limit, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(*name, value.parse().unwrap());
        }
        asked.check(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn an_answer_fits_the_question() {
        let asked = asked("bytes=4096-8191", Some("\"a\""));
        let good = [("content-range", "bytes 4096-8191/9000"), ("etag", "\"a\"")];
        assert_eq!(check(&asked, 206, &good).unwrap(), Limit::Exactly(4096));
        // Without a total, as RFC 9110 allows.
        let open = [("content-range", "bytes 4096-8191/*"), ("etag", "\"a\"")];
        assert_eq!(check(&asked, 206, &open).unwrap(), Limit::Exactly(4096));
        assert!(check(&asked, 200, &good).is_err(), "no range");
        assert_eq!(
            check(&asked, 404, &[]).unwrap(),
            Limit::Cut(MOST_OF_AN_ERROR)
        );
        assert!(check(&asked, 503, &[]).unwrap_err().is_temporary());
        assert!(!check(&asked, 301, &[]).unwrap_err().is_temporary());
        for range in ["bytes 0-4095/9000", "bytes 4096-8192/9000", "4096-8191", ""] {
            let lines = [("content-range", range), ("etag", "\"a\"")];
            assert!(check(&asked, 206, &lines).is_err(), "{range}");
        }
        for (name, value) in [("content-encoding", "gzip"), ("content-length", "4095")] {
            let mut lines = good.to_vec();
            lines.push((name, value));
            assert!(check(&asked, 206, &lines).is_err(), "{name}");
        }
    }

    #[test]
    fn another_etag_or_none_is_a_change() {
        for mine in ["\"a\"", "W/\"a\""] {
            let asked = asked("bytes=0-0", Some(mine));
            for now in [Some("\"b\""), None] {
                let mut lines = vec![("content-range", "bytes 0-0/1")];
                lines.extend(now.map(|now| ("etag", now)));
                let error = check(&asked, 206, &lines).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConditionNotMatch);
                assert!(!error.is_temporary());
            }
        }
    }

    #[test]
    fn bounds_are_two_numbers_in_order() {
        assert_eq!(bounds("0-0"), Some((0, 0)));
        let most = u64::MAX.to_string();
        assert_eq!(bounds(&format!("0-{most}")), Some((0, u64::MAX)));
        for bad in ["", "-", "1-0", "0-", "-1", "0-18446744073709551616", "a-b"] {
            assert_eq!(bounds(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_answer_is_of_the_version_that_was_opened() {
        let expected = |check| {
            let mut metadata = opendal::MetadataBuilder::file(9000);
            metadata.etag("\"a\"");
            Expected {
                version: Version::of(&metadata.build()),
                check,
            }
        };
        let check = |by, range: &str, etag: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, range.parse().unwrap());
            headers.insert(header::ETAG, etag.parse().unwrap());
            expected(by).check(&headers).map_err(|error| error.kind())
        };
        let changed = Err(ErrorKind::ConditionNotMatch);
        assert_eq!(check(Check::Version, "bytes 0-1/9000", "\"a\""), Ok(()));
        assert_eq!(check(Check::Version, "bytes 0-1/*", "\"a\""), Ok(()));
        assert_eq!(check(Check::Version, "bytes 0-1/9000", "\"b\""), changed);
        assert_eq!(check(Check::Version, "bytes 0-1/9001", "\"a\""), changed);
        assert_eq!(check(Check::Size, "bytes 0-1/9000", "\"b\""), Ok(()));
        assert_eq!(check(Check::Size, "bytes 0-1/9001", "\"a\""), changed);
    }
}
