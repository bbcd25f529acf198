// SPDX-License-Identifier: MIT OR Apache-2.0

//! A body that breaks, and what follows of another version: each answer is held against the version by itself.

use super::*;

const SECOND: (usize, usize) = (8192, 12_287);

/// The first half of what is asked for comes as it should, and the second with these lines.
fn continued(
    first: &'static str,
    second: &'static str,
    check: Check,
) -> (Result<(), ReadError>, Vec<u8>) {
    let data = blob(SIZE);
    let bench = Bench::with(quick(), move |asked, stream| {
        if asked.method == "HEAD" {
            let lines = format!("{first}Content-Length: {SIZE}\r\n");
            return head(stream, "200 OK", &lines);
        }
        let (range, lines, total) = match asked.before {
            0 => ((4096, 12_287), first, SIZE),
            _ if second.starts_with('+') => (SECOND, &second[1..], SIZE + 1),
            _ => (SECOND, second, SIZE),
        };
        let lines = format!(
            "{lines}Content-Range: bytes {}-{}/{total}\r\nContent-Length: {}\r\n",
            range.0,
            range.1,
            range.1 - range.0 + 1
        );
        head(stream, "206 Partial Content", &lines)?;
        if asked.before == 0 {
            stream.write_all(&data[4096..8192])?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        stream.write_all(&data[range.0..=range.1])
    });
    let mut part = vec![0; 8192];
    let mut blob = bench.blob();
    blob.check_by(check);
    let result = blob.read_at(&mut part, 4096);
    assert!(bench.server.gets() >= 2, "it did not break");
    (result, part)
}

#[test]
fn the_rest_is_of_the_same_version() {
    let etag = "ETag: \"one\"\r\n";
    let time = "Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT\r\n";
    for same in [etag, time, ""] {
        let (result, part) = continued(same, same, Check::Version);
        result.unwrap();
        assert!(part == blob(SIZE)[4096..12_288]);
    }
    let later = "Last-Modified: Tue, 15 Nov 1994 12:45:27 GMT\r\n";
    for (first, second) in [
        (etag, "ETag: \"two\"\r\n"),
        (etag, ""),
        (etag, "+ETag: \"one\"\r\n"),
        (time, later),
        (time, ""),
        (time, "+Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT\r\n"),
        ("", "+"),
        ("ETag: W/\"one\"\r\n", "ETag: W/\"two\"\r\n"),
    ] {
        let (result, _) = continued(first, second, Check::Version);
        let error = result.unwrap_err();
        assert!(
            matches!(error, ReadError::Changed(_)),
            "{first}{second}: {error}"
        );
    }
}

#[test]
fn with_a_manifest_a_mirror_may_go_on() {
    let etag = "ETag: \"one\"\r\n";
    let (result, part) = continued(etag, "ETag: \"two\"\r\n", Check::Size);
    result.unwrap();
    assert!(part == blob(SIZE)[4096..12_288]);
    let (result, _) = continued(etag, "+ETag: \"one\"\r\n", Check::Size);
    assert!(matches!(result.unwrap_err(), ReadError::Changed(_)));
}
