// SPDX-License-Identifier: MIT OR Apache-2.0

//! The server with a socket for a kernel: what it says, and in which order.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use std::time::Instant;

use cachefiles_proto::Buffer;
use cachefiles_proto::Packet;
use cachefiles_proto::Payload;
use rustix::net::AddressFamily;
use rustix::net::SocketFlags;
use rustix::net::SocketType;

use super::*;
use crate::record;
use crate::record::begin::for_bind;
use crate::record::begin::Claim;
use crate::record::Record;
use crate::source::names::SourceList;

/// A server and the kernel's end of its device.
struct Bench {
    server: Server,
    kernel: OwnedFd,
    dir: tempfile::TempDir,
    /// The directory of the cache, which has a record.
    cache: tempfile::TempDir,
    buffer: BlockBuffer,
}

/// What a new cache has recorded, on a module without tokens.
fn versions(cache: &std::path::Path) -> Versions {
    let claim = Claim::new(cache).unwrap().unwrap();
    for_bind(&claim, cache).unwrap();
    let record = Record::open(&cache.join(record::FILE)).unwrap();
    Versions::new(record, Guard::Record, Box::new(|_| Ok(())))
}

impl Bench {
    fn new() -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (device, kernel) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let counters = Arc::new(Counters::create().unwrap());
        let list = SourceList::directory(dir.path());
        let sources = Sources::open(&list, &counters).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let server = Server {
            // SAFETY: The bench sends OPENs only with descriptors that it gave up.
            device: unsafe { Device::from_owned_fd_unchecked(device) },
            pools: Pools::new(&sources),
            sources,
            objects: Objects::default(),
            counters,
            patience: Patience::new(Duration::from_millis(200), Duration::from_secs(600)),
            rest: Rest::default(),
            versions: versions(cache.path()),
        };
        Bench {
            server,
            kernel,
            dir,
            cache,
            // Small, so that a READ takes several turns.
            buffer: BlockBuffer::new(2),
        }
    }

    fn send(&mut self, msg_id: u32, object_id: u32, payload: Payload<'_>) {
        let packet = Packet {
            msg_id,
            object_id,
            payload,
        };
        rustix::io::write(&self.kernel, &packet.encode()).unwrap();
        let message = self.server.device.read_message(&mut Buffer::new());
        self.server
            .answer(message.unwrap().unwrap(), &mut self.buffer);
    }

    /// An OPEN of `key`; returns the cache file.
    fn open(&mut self, msg_id: u32, object_id: u32, cookie_key: &[u8]) -> File {
        let cache = tempfile::tempfile().unwrap();
        self.open_file(msg_id, object_id, cookie_key, &cache);
        cache
    }

    /// An OPEN of `key` with a given cache file.
    fn open_file(&mut self, msg_id: u32, object_id: u32, cookie_key: &[u8], cache: &File) {
        let fd = OwnedFd::from(cache.try_clone().unwrap()).into_raw_fd();
        let payload = Payload::Open {
            fd,
            flags: 0,
            volume_key: b"erofs,v",
            cookie_key,
        };
        self.send(msg_id, object_id, payload);
    }

    fn command(&self) -> String {
        let mut line = [0; 4096];
        let len = rustix::io::read(&self.kernel, &mut line).unwrap();
        String::from_utf8(line[..len].to_vec()).unwrap()
    }
}

#[test]
fn an_unknown_blob_is_closed_and_refused() {
    let mut bench = Bench::new();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let payload = Payload::Open {
        fd: writer.into_raw_fd(),
        flags: 0,
        volume_key: b"erofs,v",
        cookie_key: b"../none",
    };
    bench.send(4, 1, payload);
    assert_eq!(bench.command(), "copen 4,-2");
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0), "not closed");
    let numbers = bench.server.counters.snapshot();
    assert_eq!((numbers.opens, numbers.refused), (0, 1));
}

#[test]
fn a_blob_is_copied_in_whole_blocks() {
    let mut bench = Bench::new();
    let blob: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8 | 1).collect();
    std::fs::write(bench.dir.path().join("b"), &blob).unwrap();
    let cache = bench.open(1, 7, b"b");
    assert_eq!(bench.command(), "copen 1,20000");

    // From the second block on, and far beyond the end; the offset overflows if added naively.
    let len = u64::MAX;
    bench.send(2, 7, Payload::Read { off: 4096, len });
    assert_eq!(cache.metadata().unwrap().len(), 20_480);
    let mut copy = vec![0; 20_480];
    cache.read_exact_at(&mut copy, 0).unwrap();
    assert!(copy[..4096].iter().all(|byte| *byte == 0));
    assert_eq!(&copy[4096..20_000], &blob[4096..]);
    assert!(copy[20_000..].iter().all(|byte| *byte == 0));
    assert_eq!(bench.server.counters.snapshot().bytes, 20_480 - 4096);

    // One block in the middle, then a range that has nothing.
    bench.send(3, 7, Payload::Read { off: 0, len: 4096 });
    cache.read_exact_at(&mut copy, 0).unwrap();
    assert_eq!(&copy[..20_000], &blob[..]);
    bench.send(4, 7, Payload::Read { off: 1 << 40, len });
    assert_eq!(cache.metadata().unwrap().len(), 20_480);
    assert_eq!(bench.server.counters.snapshot().bytes, 20_480);
}

#[test]
fn a_source_that_shrank_leaves_a_hole() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("b");
    std::fs::write(&path, [1; 8192]).unwrap();
    let cache = bench.open(1, 7, b"b");
    std::fs::write(&path, [1; 100]).unwrap();
    bench.send(2, 7, Payload::Read { off: 0, len: 8192 });
    assert_eq!(cache.metadata().unwrap().len(), 0, "no zeros for data");
    let numbers = bench.server.counters.snapshot();
    assert_eq!(numbers.source_errors, 1);
    // The fake kernel's file knows no READ_COMPLETE, but it was tried.
    assert_eq!((numbers.reads, numbers.kernel_errors), (0, 1));
}

#[test]
fn a_full_cache_is_waited_for_once() {
    let mut bench = Bench::new();
    std::fs::write(bench.dir.path().join("b"), [1; 8192]).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    bench.open_file(1, 7, b"b", &full);
    let read = Payload::Read { off: 0, len: 8192 };
    let start = Instant::now();
    bench.send(2, 7, read);
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "it has waited"
    );
    // Those that follow do not wait.  Each would take as long if they did, on any machine; that one is
    // quick is enough, for a busy machine may hold up any of them.
    let mut tries = 1;
    loop {
        let start = Instant::now();
        bench.send(2 + tries, 7, Payload::Read { off: 0, len: 8192 });
        tries += 1;
        if start.elapsed() < Duration::from_millis(200) {
            break;
        }
        assert!(tries < 30, "all of them have waited");
    }
    let tries = u64::from(tries);
    let numbers = bench.server.counters.snapshot();
    assert_eq!(
        (numbers.fills_without_space, numbers.fills_that_waited),
        (tries, 0)
    );
    // READ_COMPLETE was tried each time.
    assert_eq!((numbers.bytes, numbers.kernel_errors), (0, tries));
    // Who needs no space is served meanwhile.
    let cache = bench.open(40, 8, b"b");
    bench.send(41, 8, Payload::Read { off: 0, len: 8192 });
    assert_eq!(cache.metadata().unwrap().len(), 8192);
}

#[test]
fn reopens_and_closes_are_counted() {
    let mut bench = Bench::new();
    std::fs::write(bench.dir.path().join("b"), [1; 1]).unwrap();
    bench.open(1, 7, b"b");
    bench.open(2, 8, b"b");
    bench.send(3, 7, Payload::Close);
    bench.send(4, 7, Payload::Close);
    bench.send(5, 7, Payload::Read { off: 0, len: 4096 });
    let numbers = bench.server.counters.snapshot();
    assert_eq!((numbers.opens, numbers.reopens), (2, 1));
    assert_eq!((numbers.closes, numbers.strays), (2, 2));
    assert!(bench.server.objects.get(8).is_some());
}

#[test]
fn an_open_that_the_kernel_gave_up_is_dropped() {
    let mut bench = Bench::new();
    std::fs::write(bench.dir.path().join("b"), [1; 1]).unwrap();
    let packet = Packet {
        msg_id: 1,
        object_id: 7,
        payload: Payload::Open {
            fd: tempfile::tempfile().unwrap().into_raw_fd(),
            flags: 0,
            volume_key: b"v",
            cookie_key: b"b",
        },
    };
    rustix::io::write(&bench.kernel, &packet.encode()).unwrap();
    let message = bench.server.device.read_message(&mut Buffer::new());
    // The device refuses the answer, since its other end is gone.
    bench.kernel = tempfile::tempfile().unwrap().into();
    bench
        .server
        .answer(message.unwrap().unwrap(), &mut bench.buffer);
    assert!(bench.server.objects.get(7).is_none());
    let numbers = bench.server.counters.snapshot();
    assert_eq!((numbers.opens, numbers.kernel_errors), (0, 1));
}

mod ahead;
mod remote;
mod versions;
