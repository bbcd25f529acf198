// SPDX-License-Identifier: MIT OR Apache-2.0

//! Remote blobs of a server that cannot be trusted.

mod continued;
mod limits;

use std::io;
use std::io::Write;
use std::net::TcpStream;

use ondemand_deadline::overdue;
use ondemand_deadline::percent_now;
use tokio::runtime::Runtime;

use super::*;
use crate::source::hostile::blob;
use crate::source::hostile::for_ever;
use crate::source::hostile::head;
use crate::source::hostile::partial;
use crate::source::hostile::well;
use crate::source::hostile::Asked;
use crate::source::hostile::Hostile;
use crate::source::hostile::SOON;

const ETAG: &str = "\"one\"";
const SIZE: usize = 100_000;

/// A server, and a client for it.
struct Bench {
    server: Hostile,
    remote: Arc<Remote>,
    counters: Arc<Counters>,
    _runtime: Runtime,
}

fn quick() -> RequestLimits {
    RequestLimits {
        first_pause_ms: 1,
        longest_pause_ms: 2,
        ..RequestLimits::default()
    }
}

impl Bench {
    fn with(
        requests: RequestLimits,
        answer: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let server = Hostile::start(answer);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = HttpConfig {
            url: server.url(),
            username: None,
            password: None,
            token: None,
            ca_file: None,
            verify: crate::config::source::Verify::Never,
            identity: None,
            requests,
        };
        let counters = Arc::new(Counters::create().unwrap());
        let client = Client::http(&config, &counters).unwrap();
        let remote = client.on(runtime.handle().clone());
        Bench {
            server,
            remote: Arc::new(remote),
            counters,
            _runtime: runtime,
        }
    }

    /// HEADs are answered well, GETs as the test wants.
    fn new(get: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let data = blob(SIZE);
        Self::with(quick(), move |asked, stream| match asked.method.as_str() {
            "HEAD" => well(asked, stream, &data, ETAG),
            _ => get(asked, stream),
        })
    }

    fn blob(&self) -> RemoteBlob {
        self.remote.lookup(b"image").unwrap()
    }

    /// Reads a part that must fail; says how often it was tried.
    fn fails(&self) -> (ReadError, usize) {
        let mut buffer = vec![0; 8192];
        let start = Instant::now();
        let error = self.blob().read_at(&mut buffer, 4096).unwrap_err();
        assert_eq!(overdue(start.elapsed(), SOON), None, "{error}");
        (error, self.server.gets())
    }
}

#[test]
fn parts_are_what_they_are_at_the_server() {
    let data = blob(SIZE);
    let copy = data.clone();
    let bench = Bench::with(quick(), move |asked, stream| {
        well(asked, stream, &copy, ETAG)
    });
    let blob = bench.remote.lookup(b"a dir/\xc3\xa4#?%").unwrap();
    assert_eq!(blob.version().size(), 100_000);
    assert_eq!(blob.version().etag(), Some(ETAG));
    for (from, len) in [(0, 1), (4096, 8192), (99_999, 1), (0, SIZE)] {
        let mut part = vec![0; len];
        blob.read_at(&mut part, from as u64).unwrap();
        assert!(part == data[from..from + len], "{from}, {len}");
    }
    blob.read_at(&mut [], 7).unwrap();
    assert_eq!(bench.server.gets(), 4, "one request a read");
    for asked in bench.server.asked() {
        assert_eq!(asked.path, "/a%20dir/%C3%A4%23%3F%25");
    }
}

#[test]
fn what_is_not_there_is_told_from_what_fails() {
    let bench = Bench::with(quick(), |asked, stream| {
        let status = asked.path.trim_start_matches('/');
        head(stream, &format!("{status} x"), "Content-Length: 0\r\n")
    });
    let lookup = |key: &[u8]| bench.remote.lookup(key).unwrap_err();
    assert_eq!(lookup(b"404"), LookupError::Unknown);
    assert!(matches!(lookup(b"403"), LookupError::Denied(_)));
    assert!(matches!(lookup(b"500"), LookupError::Remote(_)));
    assert!(matches!(lookup(b"301"), LookupError::Remote(_)));
    assert_eq!(lookup(b"../404"), LookupError::BadName);
    assert_eq!(lookup(b""), LookupError::BadName);
    assert_eq!(lookup(b"\xff"), LookupError::NotText);
}

#[test]
fn a_passing_failure_is_tried_again() {
    let data = blob(SIZE);
    let bench = Bench::new(move |asked, stream| match asked.before {
        0 => head(stream, "503 Busy", "Content-Length: 0\r\n"),
        1 => {
            // Half of what was said, then the end.
            partial(stream, (4096, 12_287), SIZE, ETAG)?;
            stream.write_all(&data[4096..8192])?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        _ => well(asked, stream, &data, ETAG),
    });
    let mut part = vec![0; 8192];
    bench.blob().read_at(&mut part, 4096).unwrap();
    assert!(part == blob(SIZE)[4096..12_288]);
    // What had come is not asked for again.
    let last = bench.server.asked().pop().unwrap();
    assert_eq!(last.range, Some((8192, 12_287)));
}

#[test]
fn tries_are_counted() {
    let bench = Bench::new(|_, stream| head(stream, "503 Busy", "Content-Length: 0\r\n"));
    let (error, tries) = bench.fails();
    assert!(matches!(error, ReadError::Remote(_)), "{error}");
    assert_eq!(tries, 1 + RequestLimits::default().retries);
    let retries = bench.counters.snapshot().retries;
    assert_eq!(usize::try_from(retries).unwrap(), tries - 1);
}

#[test]
fn a_server_that_knows_no_ranges_is_refused() {
    let bench = Bench::new(|_, stream| {
        let lines = format!("ETag: {ETAG}\r\nContent-Length: {SIZE}\r\n");
        head(stream, "200 OK", &lines)?;
        stream.write_all(&blob(SIZE))
    });
    let (error, tries) = bench.fails();
    assert!(
        error.to_string().contains("does not know ranges"),
        "{error}"
    );
    assert_eq!(tries, 1, "another try would not help");
}

#[test]
fn another_range_is_refused() {
    for range in [(0, 8191), (4096, 12_286), (4095, 12_287)] {
        let bench = Bench::new(move |_, stream| {
            partial(stream, range, SIZE, ETAG)?;
            stream.write_all(&blob(SIZE)[range.0..=range.1])
        });
        let (error, _) = bench.fails();
        assert!(error.to_string().contains("the server sends"), "{error}");
    }
}

#[test]
fn a_body_without_end_is_cut() {
    let bench = Bench::new(|_, stream| {
        let lines = format!(
            "ETag: {ETAG}\r\nContent-Range: bytes 4096-12287/{SIZE}\r\nConnection: close\r\n"
        );
        head(stream, "206 Partial Content", &lines)?;
        for_ever(stream, &[7; 4096])
    });
    let (error, _) = bench.fails();
    assert!(error.to_string().contains("more than"), "{error}");
}

#[test]
fn an_error_without_end_is_cut() {
    let bench = Bench::new(|_, stream| {
        head(stream, "400 Bad Request", "Connection: close\r\n")?;
        for_ever(stream, b"\x1b[31mlies\n")
    });
    let (error, _) = bench.fails();
    let text = error.to_string();
    assert!(
        text.len() < 1000 && !text.contains(['\n', '\x1b']),
        "{text}"
    );
}

#[test]
fn a_short_body_is_no_data() {
    let bench = Bench::new(|_, stream| {
        let lines = format!(
            "ETag: {ETAG}\r\nContent-Range: bytes 4096-12287/{SIZE}\r\nConnection: close\r\n"
        );
        head(stream, "206 Partial Content", &lines)?;
        stream.write_all(&[7; 100])?;
        Err(io::ErrorKind::ConnectionAborted.into())
    });
    let (error, _) = bench.fails();
    assert!(matches!(error, ReadError::Remote(_)), "{error}");
}

#[test]
fn a_length_that_contradicts_the_range_is_refused() {
    let bench = Bench::new(|_, stream| {
        let lines = format!(
            "ETag: {ETAG}\r\nContent-Range: bytes 4096-12287/{SIZE}\r\nContent-Length: 100\r\n"
        );
        head(stream, "206 Partial Content", &lines)?;
        stream.write_all(&[7; 100])
    });
    let (error, tries) = bench.fails();
    assert!(error.to_string().contains("8192"), "{error}");
    assert_eq!(tries, 1);
}

#[test]
fn compressed_data_is_refused() {
    let bench = Bench::new(|_, stream| {
        let lines = format!(
            "ETag: {ETAG}\r\nContent-Range: bytes 4096-12287/{SIZE}\r\nContent-Encoding: gzip\r\n"
        );
        head(
            stream,
            "206 Partial Content",
            &(lines + "Content-Length: 8192\r\n"),
        )?;
        stream.write_all(&[7; 8192])
    });
    let (error, _) = bench.fails();
    assert!(error.to_string().contains("gzip"), "{error}");
}

#[test]
fn redirects_keep_the_scheme() {
    for (to, reason) in [
        ("https://127.0.0.1:1/image", "another scheme"),
        ("ftp://127.0.0.1/image", "another scheme"),
        ("file:///etc/passwd", "not followed"),
        ("/again", "more than 5 times"),
    ] {
        let bench = Bench::new(move |_, stream| {
            let lines = format!("Location: {to}\r\nContent-Length: 0\r\n");
            head(stream, "302 Found", &lines)
        });
        let (error, tries) = bench.fails();
        assert!(error.to_string().contains(reason), "{to}: {error}");
        assert!(tries <= 6, "{to}");
    }
    let data = blob(SIZE);
    let bench = Bench::new(move |asked, stream| match asked.path.as_str() {
        "/image" => head(stream, "307 T", "Location: /there\r\nContent-Length: 0\r\n"),
        _ => well(asked, stream, &data, ETAG),
    });
    let mut part = vec![0; 8192];
    bench.blob().read_at(&mut part, 4096).unwrap();
    assert!(part == blob(SIZE)[4096..12_288]);
}

#[test]
fn another_version_is_refused_and_told() {
    for etag in [ETAG, "W/\"one\""] {
        let bench = Bench::with(quick(), move |asked, stream| {
            // From the second HEAD on, and for all GETs, there is another blob.
            match (asked.method.as_str(), asked.before) {
                ("HEAD", 0) => well(asked, stream, &blob(SIZE), etag),
                ("HEAD", _) => well(asked, stream, &blob(SIZE + 1), "\"two\""),
                _ => {
                    let range = asked.range.unwrap_or((0, 0));
                    partial(stream, range, SIZE + 1, "\"two\"")?;
                    stream.write_all(&blob(SIZE)[range.0..=range.1])
                }
            }
        });
        let (error, _) = bench.fails();
        assert!(matches!(error, ReadError::Changed(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("was 100000 bytes"), "{text}");
        assert!(
            text.contains("is 100001 bytes") && text.contains("two"),
            "{text}"
        );
    }
}

#[test]
fn another_size_under_the_same_etag_is_refused() {
    let bench = Bench::new(|asked, stream| {
        let range = asked.range.unwrap_or((0, 0));
        partial(stream, range, SIZE + 1, ETAG)?;
        stream.write_all(&blob(SIZE)[range.0..=range.1])
    });
    let (error, _) = bench.fails();
    assert!(matches!(error, ReadError::Changed(_)), "{error}");
}

#[test]
fn a_blob_that_is_gone_is_told() {
    let bench = Bench::with(quick(), |asked, stream| {
        match (asked.method.as_str(), asked.before) {
            ("HEAD", 0) => well(asked, stream, &blob(SIZE), ETAG),
            _ => head(stream, "404 Gone", "Content-Length: 0\r\n"),
        }
    });
    let (error, _) = bench.fails();
    assert!(error.to_string().contains("is gone"), "{error}");
}
