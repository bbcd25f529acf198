// SPDX-License-Identifier: MIT OR Apache-2.0

//! READs and OPENs of remote blobs, and of blobs with a manifest.

use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::sync::Mutex;
use std::thread;

use ondemand_deadline::Deadline;

use super::*;
use crate::config::source::SourceConfig;
use crate::manifest;
use crate::manifest::Manifest;
use crate::pool::Queue;
use crate::source::hostile::blob;
use crate::source::hostile::head;
use crate::source::hostile::soon;
use crate::source::hostile::well;
use crate::source::hostile::Asked;
use crate::source::hostile::Hostile;
use crate::source::hostile::SOON;

const ETAG: &str = "\"one\"";
const SIZE: usize = 20_000;

/// A bench with the source `web` beside the directory.
pub(super) fn web_bench(
    options: &str,
    answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Hostile, Bench) {
    let server = Hostile::start(answer);
    let mut bench = Bench::new();
    let mut list = SourceList::directory(bench.dir.path());
    let url = server.url();
    let toml = format!("kind = 'http'\nurl = '{url}'\nrequests.first-pause-ms = 1\n{options}");
    let source: SourceConfig = toml::from_str(&toml).unwrap();
    list.named.push(("web".into(), source));
    bench.server.sources = Sources::open(&list, &bench.server.counters).unwrap();
    (server, bench)
}

pub(super) fn sums(data: &[u8]) -> String {
    let sums = data.chunks(4096).map(manifest::sum).collect();
    let size = u64::try_from(data.len()).unwrap();
    Manifest::new(size, 4096, sums).unwrap().to_text()
}

pub(super) fn contents(cache: &File) -> Vec<u8> {
    let mut copy = vec![0; usize::try_from(cache.metadata().unwrap().len()).unwrap()];
    cache.read_exact_at(&mut copy, 0).unwrap();
    copy
}

#[test]
fn a_remote_blob_is_copied() {
    let (server, mut bench) = web_bench("verify = 'never'", |asked, stream| {
        well(asked, stream, &blob(SIZE), ETAG)
    });
    let cache = bench.open(1, 7, b"web/image");
    assert_eq!(bench.command(), "copen 1,20000");
    bench.send(
        2,
        7,
        Payload::Read {
            off: 0,
            len: 1 << 30,
        },
    );
    assert_eq!(contents(&cache)[..SIZE], blob(SIZE));
    // The bench has memory for two blocks.
    assert_eq!(server.gets(), 3);
    assert_eq!(server.asked()[0].path, "/image", "without the prefix");
}

#[test]
fn what_the_cache_has_data_of_must_not_change() {
    let changed = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&changed);
    let (_server, mut bench) = web_bench("verify = 'never'", move |asked, stream| {
        let etag = if now.load(SeqCst) { "\"two\"" } else { ETAG };
        well(asked, stream, &blob(SIZE), etag)
    });
    let cache = bench.open(1, 7, b"web/image");
    assert_eq!(bench.command(), "copen 1,20000");
    changed.store(true, SeqCst);
    // A READ that is under way when it changes gets nothing.
    bench.send(2, 7, Payload::Read { off: 0, len: 4096 });
    assert_eq!(cache.metadata().unwrap().len(), 0);
    assert_eq!(bench.server.counters.snapshot().source_errors, 1);
    // It is in use, and what its reader has in memory is of the other version.
    bench.open_file(3, 8, b"web/image", &cache);
    let stale = format!("copen 3,-{}", Errno::STALE.raw_os_error());
    assert_eq!(bench.command(), stale);
    assert_eq!(bench.server.counters.snapshot().changed_blobs, 1);
    // It is back.
    changed.store(false, SeqCst);
    bench.open_file(4, 9, b"web/image", &cache);
    assert_eq!(bench.command(), "copen 4,20000");
    bench.send(5, 9, Payload::Read { off: 0, len: 4096 });
    assert_eq!(contents(&cache), blob(SIZE)[..4096]);
}

#[test]
fn wrong_bytes_are_fetched_again() {
    let (server, mut bench) = web_bench("", |asked, stream| {
        let data = blob(SIZE);
        if asked.path.ends_with(".manifest") {
            return well(asked, stream, sums(&data).as_bytes(), "\"m\"");
        }
        // GETs 0 and 1 are of the manifest and of the first two blocks.
        if asked.method == "GET" && asked.before == 1 {
            let mut wrong = data;
            wrong[5000] ^= 1;
            return well(asked, stream, &wrong, ETAG);
        }
        well(asked, stream, &data, ETAG)
    });
    let cache = bench.open(1, 7, b"web/image");
    bench.send(2, 7, Payload::Read { off: 0, len: 8192 });
    assert_eq!(contents(&cache), blob(SIZE)[..8192]);
    let last = server.asked().pop().unwrap();
    assert_eq!(last.range, Some((4096, 8191)), "that chunk alone");
    let numbers = bench.server.counters.snapshot();
    assert_eq!((numbers.bad_chunks, numbers.verify_errors), (1, 0));
}

#[test]
fn wrong_bytes_never_reach_the_cache() {
    let mut bench = Bench::new();
    let data = blob(SIZE);
    let at = |name: &str| bench.dir.path().join(name);
    std::fs::write(at("image.manifest"), sums(&data)).unwrap();
    let mut wrong = data.clone();
    wrong[SIZE - 1] ^= 1;
    std::fs::write(at("image"), &wrong).unwrap();
    let cache = bench.open(1, 7, b"image");
    assert_eq!(bench.command(), "copen 1,20000");
    bench.send(
        2,
        7,
        Payload::Read {
            off: 16_384,
            len: 4096,
        },
    );
    assert_eq!(cache.metadata().unwrap().len(), 0);
    let numbers = bench.server.counters.snapshot();
    assert_eq!((numbers.bad_chunks, numbers.verify_errors), (1, 1));
    assert_eq!(numbers.bytes, 0);
    bench.send(3, 7, Payload::Read { off: 0, len: 8192 });
    assert_eq!(contents(&cache), data[..8192], "the rest is good");
}

#[test]
fn a_manifest_that_does_not_fit_refuses_the_image() {
    let mut bench = Bench::new();
    let dir = bench.dir.path().to_owned();
    let at = |name: &str| dir.join(name);
    std::fs::write(at("image"), blob(SIZE)).unwrap();
    let endless = "x".repeat(100_000);
    for text in [sums(&blob(SIZE + 1)), "x".into(), String::new(), endless] {
        std::fs::write(at("image.manifest"), text).unwrap();
        bench.open(1, 7, b"image");
        assert_eq!(
            bench.command(),
            format!("copen 1,-{}", Errno::IO.raw_os_error())
        );
    }
}

#[test]
fn a_manifest_can_be_demanded() {
    let (_server, mut bench) = web_bench("verify = 'always'", |asked, stream| {
        if asked.path.ends_with(".manifest") {
            return head(stream, "404 None", "Content-Length: 0\r\n");
        }
        well(asked, stream, &blob(SIZE), ETAG)
    });
    bench.open(1, 7, b"web/image");
    assert_eq!(
        bench.command(),
        format!("copen 1,-{}", Errno::IO.raw_os_error())
    );
}

#[test]
fn whole_chunks_are_fetched() {
    let mut bench = Bench::new();
    let data = blob(SIZE);
    let sums = data.chunks(8192).map(manifest::sum).collect();
    let text = Manifest::new(20_000, 8192, sums).unwrap().to_text();
    std::fs::write(bench.dir.path().join("image.manifest"), text).unwrap();
    std::fs::write(bench.dir.path().join("image"), &data).unwrap();
    let cache = bench.open(1, 7, b"image");
    bench.send(
        2,
        7,
        Payload::Read {
            off: 4096,
            len: 4096,
        },
    );
    assert_eq!(contents(&cache), data[..8192]);
    bench.send(
        3,
        7,
        Payload::Read {
            off: 16_384,
            len: 4096,
        },
    );
    assert_eq!(contents(&cache)[16_384..SIZE], data[16_384..]);
    bench.send(
        4,
        7,
        Payload::Read {
            off: 1 << 40,
            len: 4096,
        },
    );
    assert_eq!(bench.server.counters.snapshot().bytes, 8192 + 4096);
}

#[test]
fn a_remote_source_holds_nobody_up() {
    let (server, mut bench) = web_bench("verify = 'never'", |asked, stream| {
        well(asked, stream, &blob(SIZE), ETAG)
    });
    bench.server.pools = Pools::new(&bench.server.sources);
    std::fs::write(bench.dir.path().join("file"), blob(5000)).unwrap();
    let remote = bench.open(1, 7, b"web/image");
    let file = bench.open(2, 8, b"file");
    assert_eq!(bench.command(), "copen 2,5000");
    bench.send(3, 8, Payload::Read { off: 0, len: 8192 });
    assert_eq!(contents(&file)[..5000], blob(5000));
    assert_eq!(server.asked().len(), 0, "nobody has asked yet");

    // What the threads of that source do.
    let next = |bench: &mut Bench| {
        let queue = bench.server.pools.of(1).unwrap();
        queue.serve(|job| bench.server.work(job, &mut bench.buffer));
    };
    next(&mut bench);
    assert_eq!(bench.command(), "copen 1,20000");
    bench.send(4, 7, Payload::Read { off: 0, len: 4096 });
    // The object is kept until its READ has ended.
    bench.send(5, 7, Payload::Close);
    assert_eq!(remote.metadata().unwrap().len(), 0);
    next(&mut bench);
    assert_eq!(contents(&remote), blob(SIZE)[..4096]);
    let queues: Vec<usize> = bench.server.pools.iter().map(Queue::threads).collect();
    assert_eq!(queues, [8]);
}

#[test]
fn what_two_readers_miss_is_fetched_once() {
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let (server, mut bench) = web_bench("verify = 'never'", move |asked, stream| {
        if asked.method == "GET" {
            // The first waits for the test, and so does any other, in vain.
            let word = released.lock().unwrap().recv_timeout(soon());
            word.map_err(|_| std::io::ErrorKind::TimedOut)?;
        }
        well(asked, stream, &blob(SIZE), ETAG)
    });
    let cache = bench.open(1, 7, b"web/image");
    bench.command();
    let object = bench.server.objects.get(7).unwrap();
    let flights = object.blob.as_remote().unwrap().flights();
    let server_side = &bench.server;
    thread::scope(|scope| {
        for msg_id in [2, 3] {
            let job = Job::Read(Arc::clone(&object), read(msg_id, 0, 8192), Instant::now());
            scope.spawn(move || server_side.work(job, &mut BlockBuffer::new(2)));
        }
        let mut deadline = Deadline::after(SOON);
        while flights.waiting() == 0 {
            assert!(!deadline.passed(), "nobody waits");
            thread::yield_now();
        }
        release.send(()).unwrap();
    });
    assert_eq!(server.gets(), 1);
    assert_eq!(contents(&cache), blob(SIZE)[..8192]);
    assert_eq!(bench.server.counters.snapshot().bytes, 8192);
}

fn read(msg_id: u32, off: u64, len: u64) -> Read {
    Read {
        msg_id,
        object_id: 7,
        off,
        len,
    }
}
