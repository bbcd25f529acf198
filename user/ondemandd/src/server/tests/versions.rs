// SPDX-License-Identifier: MIT OR Apache-2.0

//! OPENs of what has changed: on a kernel that knows versions, and on one that does not.

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Mutex;

use super::remote::contents;
use super::remote::sums;
use super::remote::web_bench;
use super::*;
use crate::record::judge::Opening;
use crate::record::Entry;
use crate::source::hostile::blob;
use crate::source::hostile::head;
use crate::source::hostile::well;

fn stale(msg_id: u32) -> String {
    format!("copen {msg_id},-{}", Errno::STALE.raw_os_error())
}

impl Bench {
    /// On a kernel that knows versions.
    fn with_tokens(mut self) -> Self {
        self.server.versions.guard = Guard::Kernel;
        self
    }

    fn entry(&self, key: &[u8]) -> Option<Entry> {
        let record = Record::open(&self.cache.path().join(record::FILE)).unwrap();
        record.get(&Name::of(b"erofs,v", key)).unwrap().0
    }

    fn write(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// The second half of `copen ID,SIZE,TOKEN`.
fn token_of(command: &str) -> String {
    let (before, token) = command.rsplit_once(',').unwrap();
    assert!(before.contains(','), "{command}");
    assert_eq!(token.len(), 64, "{command}");
    token.to_owned()
}

#[test]
fn a_version_has_its_token_and_keeps_it() {
    let mut bench = Bench::new().with_tokens();
    bench.write("b", &[1; 8192]);
    bench.open(1, 7, b"b");
    let one = token_of(&bench.command());
    assert_eq!(bench.entry(b"b").unwrap().token.to_string(), one);
    assert!(bench.entry(b"b").unwrap().sole);
    bench.open(2, 8, b"b");
    assert_eq!(token_of(&bench.command()), one);
    let lines = || std::fs::read_to_string(bench.cache.path().join(record::FILE)).unwrap();
    assert_eq!(lines().lines().count(), 2, "nothing new is written");

    bench.write("b", &[2; 8192]);
    bench.open(3, 9, b"b");
    let two = token_of(&bench.command());
    assert_ne!(one, two);
    // What the kernel has stored is one or the other.
    let entry = bench.entry(b"b").unwrap();
    assert_eq!((entry.token.to_string(), entry.sole), (two, false));
}

#[test]
fn on_a_kernel_without_tokens_a_file_is_made_stale_first() {
    let mut bench = Bench::new();
    let made = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&made);
    let record_path = bench.cache.path().join(record::FILE);
    bench.server.versions.make_stale = Box::new(move |name: &Name| {
        // Before the record says anything else.
        let record = Record::open(&record_path).unwrap();
        let what = record.get(name).unwrap().0.unwrap().what;
        told.lock().unwrap().push((name.to_string(), what));
        Ok(())
    });
    bench.server.versions.opening = |_| Opening::First;
    bench.write("b", &[1; 8192]);
    bench.open(1, 7, b"b");
    assert_eq!(bench.command(), "copen 1,8192");
    let before = bench.entry(b"b").unwrap();
    bench.open(2, 8, b"b");
    assert_eq!(bench.command(), "copen 2,8192");
    assert!(made.lock().unwrap().is_empty());

    bench.write("b", &[2; 8192]);
    bench.open(3, 9, b"b");
    assert_eq!(bench.command(), "copen 3,8192");
    let made = made.lock().unwrap().clone();
    assert_eq!(made.len(), 1);
    assert!(made[0].0.ends_with("/Db"), "{made:?}");
    assert_eq!(made[0].1, before.what);
    let after = bench.entry(b"b").unwrap();
    assert!(after.sole && after.token != before.token);
}

#[test]
fn without_a_keeper_nothing_is_mixed() {
    let mut bench = Bench::new();
    bench.server.versions.opening = |_| Opening::First;
    bench.server.versions.make_stale = Box::new(|_| Err("it has ended".into()));
    bench.write("b", &[1; 8192]);
    bench.open(1, 7, b"b");
    assert_eq!(bench.command(), "copen 1,8192");
    let before = bench.entry(b"b");
    bench.write("b", &[2; 8192]);
    bench.open(2, 8, b"b");
    assert_eq!(
        bench.command(),
        format!("copen 2,-{}", Errno::IO.raw_os_error())
    );
    assert_eq!(bench.entry(b"b"), before);
}

#[test]
fn what_is_in_use_is_refused_and_told() {
    let mut bench = Bench::new();
    bench.write("b", &[1; 8192]);
    let cache = bench.open(1, 7, b"b");
    bench.command();
    bench.send(2, 7, Payload::Read { off: 0, len: 4096 });
    bench.write("b", &[2; 8192]);
    // The worker that is there has it open, and sees it too; nothing is mixed.
    bench.send(
        3,
        7,
        Payload::Read {
            off: 4096,
            len: 4096,
        },
    );
    assert_eq!(contents(&cache), [1; 4096]);
    let change = bench.entry(b"b").unwrap().changed.unwrap();
    assert!(change.starts_with("was 8192 bytes"), "{change}");
    // And so does the next one.
    for msg_id in 4..9 {
        bench.open_file(msg_id, 8, b"b", &cache);
        assert_eq!(bench.command(), stale(msg_id));
    }
    assert_eq!(bench.server.counters.snapshot().changed_blobs, 5);
    let text = std::fs::read_to_string(bench.cache.path().join(record::FILE)).unwrap();
    assert!(text.lines().count() <= 4, "one line for many OPENs: {text}");
}

#[test]
fn a_kernel_that_insists_is_answered_and_gets_no_data() {
    let mut bench = Bench::new();
    bench.server.versions.insists = true;
    bench.write("b", &[1; 8192]);
    let cache = bench.open(1, 7, b"b");
    bench.command();
    bench.send(2, 7, Payload::Read { off: 0, len: 4096 });
    // Another size, which the kernel must not hear of.
    bench.write("b", &[2; 9000]);
    bench.open_file(3, 8, b"b", &cache);
    assert_eq!(bench.command(), "copen 3,8192");
    bench.send(
        4,
        8,
        Payload::Read {
            off: 4096,
            len: 4096,
        },
    );
    assert_eq!(contents(&cache), [1; 4096]);
    let numbers = bench.server.counters.snapshot();
    assert_eq!((numbers.source_errors, numbers.changed_blobs), (1, 1));
    assert!(bench.entry(b"b").unwrap().changed.is_some());
    // It was unmounted, and is mounted again.
    bench.server.versions.opening = |_| Opening::First;
    let new = bench.open(5, 9, b"b");
    assert_eq!(bench.command(), "copen 5,9000");
    bench.send(6, 9, Payload::Read { off: 0, len: 4096 });
    assert_eq!(contents(&new), [2; 4096]);
    assert_eq!(bench.entry(b"b").unwrap().changed, None);
}

#[test]
fn what_a_kernel_refuses_is_told_as_well() {
    let mut bench = Bench::new().with_tokens();
    bench.write("b", &[1; 8192]);
    bench.open(1, 7, b"b");
    let one = token_of(&bench.command());
    bench.write("b", &[2; 8192]);
    // A kernel that says ESTALE to all: its end takes nothing.
    let before = std::mem::replace(&mut bench.kernel, tempfile::tempfile().unwrap().into());
    drop(before);
    let known = bench
        .server
        .versions
        .known(&Name::of(b"erofs,v", b"b"))
        .unwrap();
    let (_, source, key) = bench.server.sources.find(b"b").unwrap();
    let found = source.open(key, false).unwrap();
    let change = known.change(&found.identity);
    assert!(change.contains("was 8192 bytes") && change.contains("is 8192 bytes"));
    bench
        .server
        .note_change(&Name::of(b"erofs,v", b"b"), "b", &change);
    let entry = bench.entry(b"b").unwrap();
    assert_eq!(entry.token.to_string(), one);
    assert_eq!(entry.changed, Some(change));
    // It is back to what is mounted.
    bench.server.note_same(&Name::of(b"erofs,v", b"b"), &known);
    assert_eq!(bench.entry(b"b").unwrap().changed, None);
}

#[test]
fn a_manifest_is_the_identity_wherever_the_bytes_come_from() {
    let round = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&round);
    // Each answer has another ETag, as mirrors have.
    let (_server, bench) = web_bench("", move |asked, stream| {
        let etag = format!("\"{}\"", now.fetch_add(1, SeqCst));
        let data = blob(20_000);
        match asked.path.ends_with(".manifest") {
            true => well(asked, stream, sums(&data).as_bytes(), "\"m\""),
            false => well(asked, stream, &data, &etag),
        }
    });
    let mut bench = bench.with_tokens();
    let cache = bench.open(1, 7, b"web/image");
    let one = token_of(&bench.command());
    bench.send(2, 7, Payload::Read { off: 0, len: 8192 });
    assert_eq!(contents(&cache), blob(20_000)[..8192]);
    bench.open(3, 8, b"web/image");
    assert_eq!(token_of(&bench.command()), one);
    assert!(bench.entry(b"web/image").unwrap().manifest);
}

#[test]
fn a_manifest_that_was_there_is_missed() {
    let round = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&round);
    let (_server, bench) = web_bench("requests.retries = 0", move |asked, stream| {
        let data = blob(20_000);
        if !asked.path.ends_with(".manifest") {
            return well(asked, stream, &data, "\"one\"");
        }
        match now.load(SeqCst) {
            0 => well(asked, stream, sums(&data).as_bytes(), "\"m\""),
            1 => head(stream, "404 None", "Content-Length: 0\r\n"),
            2 => head(stream, "403 No", "Content-Length: 0\r\n"),
            _ => head(stream, "500 Oh", "Content-Length: 0\r\n"),
        }
    });
    let mut bench = bench.with_tokens();
    bench.open(1, 7, b"web/image");
    token_of(&bench.command());
    for way in 1..4 {
        round.store(way, SeqCst);
        let msg_id = u32::try_from(way).unwrap() + 1;
        bench.open(msg_id, 8, b"web/image");
        let refused = format!("copen {msg_id},-{}", Errno::IO.raw_os_error());
        assert_eq!(bench.command(), refused);
        assert!(bench.entry(b"web/image").unwrap().manifest);
    }
    // Somebody wants it so.
    let record = Record::open(&bench.cache.path().join(record::FILE)).unwrap();
    record.forget(&Name::of(b"erofs,v", b"web/image")).unwrap();
    round.store(1, SeqCst);
    bench.open(9, 9, b"web/image");
    token_of(&bench.command());
    assert!(!bench.entry(b"web/image").unwrap().manifest);
}

#[test]
fn a_record_that_cannot_be_written_refuses_what_is_new() {
    let mut bench = Bench::new().with_tokens();
    bench.write("b", &[1; 8192]);
    bench.write("c", &[1; 8192]);
    bench.open(1, 7, b"b");
    token_of(&bench.command());
    let path = bench.cache.path().join(record::FILE);
    let file = File::options().write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    // Somebody has cut it: nothing in it is believed.
    file.set_len(len - 10).unwrap();
    bench.open(2, 8, b"c");
    assert_eq!(
        bench.command(),
        format!("copen 2,-{}", Errno::IO.raw_os_error())
    );
}
