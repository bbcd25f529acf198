// SPDX-License-Identifier: MIT OR Apache-2.0

//! No secret is logged, at whatever level, by whatever crate; it would have caught the one that logs S3 keys. The
//! one test of this process, since it takes the log of all of it.

#[path = "support/hostile.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod hostile;

use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use hostile::Hostile;
use ondemandd::config::secret::SecretPlace;
use ondemandd::config::source::SourceConfig;
use ondemandd::counters::Counters;
use ondemandd::logging;
use ondemandd::source::names::SourceList;
use ondemandd::source::names::Sources;

const ETAG: &str = "\"e\"";

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[test]
fn no_secret_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let format = logging::LogFormat::Human;
    logging::start("trace", format, move || writer.clone(), false).unwrap();

    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("secret");
    std::fs::write(&path, "hush-hush-secret\n").unwrap();
    let place = serde_json::to_string(&SecretPlace::File(path)).unwrap();
    // Every answer is a failure, which is when most is said.
    let server = Hostile::start(|asked, stream| match asked.method.as_str() {
        "HEAD" if asked.before % 2 == 0 => hostile::well(asked, stream, &[1; 9000], ETAG),
        _ => hostile::head(stream, "403 No", "Content-Length: 4\r\n")
            .and_then(|()| io::Write::write_all(stream, b"why?")),
    });
    let url = server.url();
    for (json, sent) in [
        (
            format!(r#"{{"kind":"http","url":"{url}","token":{place}}}"#),
            "Bearer hush-hush-secret",
        ),
        (
            format!(r#"{{"kind":"http","url":"{url}","username":"u","password":{place}}}"#),
            "Basic dTpodXNoLWh1c2gtc2VjcmV0",
        ),
        (
            format!(
                r#"{{"kind":"s3","bucket":"b","endpoint":"{url}","access-key-id":{place},
                    "secret-access-key":{place},"session-token":{place}}}"#
            ),
            "AWS4-HMAC-SHA256 Credential=hush-hush-secret/",
        ),
    ] {
        let list = SourceList {
            default: Some(serde_json::from_str::<SourceConfig>(&json).unwrap()),
            named: Vec::new(),
        };
        let sources = Sources::open(&list, &Arc::new(Counters::create().unwrap())).unwrap();
        let (_, source, key) = sources.find(b"image").unwrap();
        let blob = source.lookup(key).unwrap();
        let error = blob.read_at(&mut [0; 4096], 0).unwrap_err();
        let refused = source.lookup(key).unwrap_err();
        tracing::error!(%error, ?error, %refused, ?refused, ?sources, ?list, "told");

        let asked = server.asked().pop().unwrap();
        let authorization = asked.header("authorization").unwrap();
        assert!(authorization.starts_with(sent), "{authorization}");
        let log = log.take();
        assert!(log.contains("told"), "the log is kept: {log}");
        for secret in ["hush", "dTpod"] {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
    }
}
