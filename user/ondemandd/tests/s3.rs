// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is sent to an S3 server, and what is made of its answers.

#[path = "support/hostile.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod hostile;

use std::io::Write;
use std::sync::Arc;

use hostile::blob;
use hostile::head;
use hostile::well;
use hostile::Hostile;
use ondemandd::config::source::SourceConfig;
use ondemandd::counters::Counters;
use ondemandd::source::names::SourceList;
use ondemandd::source::names::Sources;
use ondemandd::source::LookupError;
use ondemandd::source::ReadError;

const ETAG: &str = "\"0123456789abcdef0123456789abcdef\"";

fn sources(server: &Hostile, more: &str) -> Sources {
    let url = server.url();
    let toml = format!(
        "kind = 's3'\nbucket = 'images'\nendpoint = '{url}'\nrequests.first-pause-ms = 1\n{more}"
    );
    let config: SourceConfig = toml::from_str(&toml).unwrap();
    config.check().unwrap();
    let list = SourceList {
        default: Some(config),
        named: Vec::new(),
    };
    Sources::open(&list, &Arc::new(Counters::create().unwrap())).unwrap()
}

fn good() -> Hostile {
    Hostile::start(|asked, stream| well(asked, stream, &blob(9000), ETAG))
}

#[test]
fn objects_are_read_with_signed_requests() {
    let root = tempfile::tempdir().unwrap();
    let key = root.path().join("key");
    std::fs::write(&key, "reader\n").unwrap();
    let server = good();
    let place = format!("{{ file = '{}' }}", key.display());
    let more = format!(
        "prefix = 'some/where'\nregion = 'here'\naccess-key-id = {place}\nsecret-access-key = {place}"
    );
    let sources = sources(&server, &more);
    let (_, source, _) = sources.find(b"a b").unwrap();
    let object = source.lookup(b"a b").unwrap();
    assert_eq!(object.size(), 9000);
    let mut part = vec![0; 4096];
    object.read_at(&mut part, 4096).unwrap();
    assert_eq!(part, blob(9000)[4096..8192]);
    let asked = server.asked();
    assert_eq!(asked.len(), 2, "a HEAD and a GET");
    for asked in asked {
        assert_eq!(asked.path, "/images/some/where/a%20b");
        let signed = asked.header("authorization").unwrap();
        assert!(
            signed.starts_with("AWS4-HMAC-SHA256 Credential=reader/"),
            "{signed}"
        );
        assert!(signed.contains("/here/s3/aws4_request"), "{signed}");
    }
}

#[test]
fn a_public_bucket_needs_no_key() {
    let server = good();
    let sources = sources(&server, "anonymous = true");
    let (_, source, key) = sources.find(b"image").unwrap();
    source.lookup(key).unwrap();
    let asked = server.asked().pop().unwrap();
    assert_eq!(
        (asked.path.as_str(), asked.header("authorization")),
        ("/images/image", None)
    );
}

#[test]
fn a_key_that_is_not_there_is_named() {
    let server = good();
    let config = format!(
        "kind = 's3'\nbucket = 'b'\nendpoint = '{}'\naccess-key-id = {{ env = 'ONDEMANDD_TEST_NONE' }}",
        server.url()
    );
    let list = SourceList {
        default: Some(toml::from_str(&config).unwrap()),
        named: Vec::new(),
    };
    let error = format!(
        "{:#}",
        Sources::open(&list, &Arc::new(Counters::create().unwrap())).unwrap_err()
    );
    assert!(error.contains("ONDEMANDD_TEST_NONE"), "{error}");
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn errors_are_what_they_are() {
    let server = Hostile::start(|asked, stream| match asked.path.as_str() {
        "/images/moved" => {
            let lines = "Location: http://127.0.0.1:1/\r\nContent-Length: 0\r\n";
            head(stream, "301 Moved", lines)
        }
        "/images/changed" if asked.method == "GET" => {
            head(stream, "412 Changed", "Content-Length: 0\r\n")
        }
        "/images/broken" if asked.method == "GET" => {
            let body = "<Error><Code>InvalidRequest</Code><Message>no\nway</Message></Error>";
            head(
                stream,
                "400 Bad",
                &format!("Content-Length: {}\r\n", body.len()),
            )?;
            stream.write_all(body.as_bytes())
        }
        "/images/none" => head(stream, "404 None", "Content-Length: 0\r\n"),
        "/images/secret" => head(stream, "403 No", "Content-Length: 0\r\n"),
        _ => well(asked, stream, &blob(9000), ETAG),
    });
    let sources = sources(&server, "anonymous = true");
    let (_, source, _) = sources.find(b"x").unwrap();
    assert_eq!(source.lookup(b"none").unwrap_err(), LookupError::Unknown);
    assert!(matches!(
        source.lookup(b"secret"),
        Err(LookupError::Denied(_))
    ));
    let error = source.lookup(b"moved").unwrap_err().to_string();
    assert!(error.contains("301"), "{error}");
    let read = |key: &[u8]| {
        let object = source.lookup(key).unwrap();
        object.read_at(&mut [0; 4096], 0).unwrap_err()
    };
    assert!(matches!(read(b"changed"), ReadError::Changed(_)));
    let error = read(b"broken").to_string();
    assert!(
        error.contains("InvalidRequest") && !error.contains('\n'),
        "{error}"
    );
}
