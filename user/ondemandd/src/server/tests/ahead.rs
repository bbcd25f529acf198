// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading ahead, with a web server that answers when the test lets it.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;

use ondemand_deadline::Deadline;

use super::remote::contents;
use super::remote::web_bench;
use super::*;
use crate::pool::Ahead as Part;
use crate::pool::Queue;
use crate::source::hostile::blob;
use crate::source::hostile::soon;
use crate::source::hostile::well;
use crate::source::hostile::Hostile;
use crate::source::hostile::SOON;

const ETAG: &str = "\"one\"";
const KIB: u64 = 1 << 10;
/// What a READ of these tests asks for, and what is read ahead at least.
const STEP: u64 = 128 * KIB;
const SIZE: u64 = 4 << 20;

/// Holds back answers of the server until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.opened.notify_all();
    }

    fn pass(&self) -> std::io::Result<()> {
        let open = self.open.lock().unwrap();
        let waited = self.opened.wait_timeout_while(open, soon(), |open| !*open);
        match waited.unwrap().1.timed_out() {
            true => Err(std::io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }
}

/// A bench with a blob at `web/image` that is open as object 7, and its cache file.
struct Ahead {
    web: Hostile,
    bench: Bench,
    cache: File,
    messages: u32,
}

impl Ahead {
    /// With these lines in the source's table; GETs wait for the gate.
    fn new(options: &str, gate: &Arc<Gate>) -> Self {
        let gate = Arc::clone(gate);
        Self::before_gets(options, move || gate.pass())
    }

    /// With these lines in the source's table; a GET whose `before` fails gets no answer.
    fn before_gets(
        options: &str,
        before: impl Fn() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let data = blob(usize::try_from(SIZE).unwrap());
        let options = format!("verify = 'never'\n{options}");
        let (web, mut bench) = web_bench(&options, move |asked, stream| {
            if asked.method == "GET" {
                before()?;
            }
            well(asked, stream, &data, ETAG)
        });
        bench.server.pools = Pools::new(&bench.server.sources);
        bench.buffer = BlockBuffer::new(256);
        let cache = bench.open(1, 7, b"web/image");
        let mut ahead = Ahead {
            web,
            bench,
            cache,
            messages: 1,
        };
        ahead.work();
        ahead
    }

    fn open(options: &str) -> Self {
        let gate = Arc::new(Gate::default());
        gate.set(true);
        Self::new(options, &gate)
    }

    /// A READ of `len` bytes at `off` comes.
    fn send(&mut self, off: u64, len: u64) {
        self.messages += 1;
        self.bench
            .send(self.messages, 7, Payload::Read { off, len });
    }

    fn queue(&self) -> &Queue {
        self.bench.server.pools.of(1).unwrap()
    }

    /// The next job is done, as a thread of the source does it.
    fn work(&mut self) {
        let Bench { server, buffer, .. } = &mut self.bench;
        let queue = server.pools.of(1).unwrap();
        queue.serve(|job| server.work(job, buffer));
    }

    /// All that waits to be read ahead is.
    fn work_off(&mut self) {
        while self.queue().aheads() > 0 {
            self.work();
        }
    }

    /// What was asked of the server, in order.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let asked = self.web.asked().into_iter();
        let number = |n: usize| u64::try_from(n).unwrap();
        let range = |(first, last)| (number(first), number(last) + 1);
        asked.filter_map(|it| it.range).map(range).collect()
    }

    /// All data up to `end` is in the cache, and right.
    fn assert_cached(&self, end: u64) {
        let end = usize::try_from(end).unwrap();
        assert!(contents(&self.cache)[..end] == blob(end));
    }
}

#[test]
fn a_reader_who_goes_on_finds_the_rest_there() {
    let mut it = Ahead::open("");
    it.send(0, STEP);
    it.work();
    assert_eq!(it.queue().aheads(), 0, "one READ tells nothing");
    it.send(STEP, STEP);
    it.work();
    assert_eq!(it.queue().aheads(), 1);
    it.work_off();
    // Again and again, from where what was read ahead ends.
    let mut reads = 2;
    loop {
        let held = contents(&it.cache).len();
        let held = u64::try_from(held).unwrap();
        it.assert_cached(held);
        if held == SIZE {
            break;
        }
        it.send(held, STEP.min(SIZE - held));
        it.work();
        it.work_off();
        reads += 1;
    }
    // A reader of each step would have sent 32.
    assert_eq!(reads, 5);
    let mut ranges = it.ranges();
    ranges.sort_unstable();
    assert!(
        ranges.windows(2).all(|two| two[0].1 == two[1].0),
        "once each: {ranges:?}"
    );
    let numbers = it.bench.server.counters.snapshot();
    assert_eq!((numbers.bytes, numbers.ahead_errors), (SIZE, 0));
    assert_eq!(numbers.ahead_bytes, SIZE - reads * STEP);
    assert_eq!(
        numbers.ahead_requests,
        u64::try_from(ranges.len()).unwrap() - reads
    );
    assert_eq!(numbers.requests_begun, numbers.requests_ended);
}

#[test]
fn scattered_reads_and_a_lone_thread_cause_nothing() {
    let mut it = Ahead::open("");
    for n in [9, 2, 14, 6, 11, 0, 4] {
        it.send(2 * n * STEP, STEP);
        it.work();
    }
    assert_eq!((it.queue().aheads(), it.web.gets()), (0, 7));
    for off in ["requests.read-ahead = 0", "requests.concurrency = 1"] {
        let mut it = Ahead::open(off);
        for n in 0..4 {
            it.send(n * STEP, STEP);
            it.work();
        }
        assert_eq!(it.queue().aheads(), 0, "{off}");
        assert_eq!(it.bench.server.counters.snapshot().ahead_requests, 0);
    }
}

#[test]
fn a_miss_overtakes_what_is_read_ahead() {
    let mut it = Ahead::open("");
    it.send(0, 1 << 20);
    it.work();
    it.send(1 << 20, 1 << 20);
    assert_eq!(it.queue().aheads(), 2, "in parts");
    it.send(3 << 20, STEP);
    for _ in 0..3 {
        it.work();
    }
    let starts: Vec<u64> = it.ranges().iter().map(|range| range.0).collect();
    assert_eq!(
        starts,
        [0, 1 << 20, 3 << 20, 2 << 20],
        "what the miss has brought is not wanted"
    );
    it.work_off();
    assert_eq!(it.bench.server.counters.snapshot().bytes, SIZE);
    it.assert_cached(SIZE);
}

#[test]
fn a_read_waits_for_what_is_on_its_way() {
    let gate = Arc::new(Gate::default());
    gate.set(true);
    let mut it = Ahead::new("", &gate);
    for n in 0..2 {
        it.send(n * STEP, STEP);
        it.work();
    }
    gate.set(false);
    let object = it.bench.server.objects.get(7).unwrap();
    let flights = object.blob.as_remote().unwrap().flights();
    it.send(2 * STEP, STEP);
    let (server, queue) = (&it.bench.server, it.queue());
    // The part is begun first: a thread had nothing else to do.
    let part = Part {
        object: Arc::downgrade(&object),
        range: 2 * STEP..4 * STEP,
    };
    queue.drop_aheads(|_| true);
    thread::scope(|scope| {
        scope.spawn(|| server.work(Job::Ahead(part), &mut BlockBuffer::new(256)));
        let mut deadline = Deadline::after(SOON);
        let mut arrived = |gets| {
            while it.web.gets() < gets {
                assert!(!deadline.passed(), "nothing was asked for");
                thread::yield_now();
            }
        };
        arrived(3);
        scope.spawn(|| queue.serve(|job| server.work(job, &mut BlockBuffer::new(256))));
        while flights.waiting() == 0 {
            assert!(!deadline.passed(), "nobody waits");
            thread::yield_now();
        }
        gate.set(true);
    });
    assert_eq!(it.web.gets(), 3, "it was fetched once");
    it.assert_cached(4 * STEP);
    let numbers = it.bench.server.counters.snapshot();
    assert_eq!((numbers.bytes, numbers.ahead_bytes), (4 * STEP, 2 * STEP));
}

#[test]
fn what_came_before_its_read_is_not_fetched_again() {
    let mut it = Ahead::open("");
    for n in 0..2 {
        it.send(n * STEP, STEP);
        it.work();
    }
    it.work_off();
    let gets = it.web.gets();
    // It was sent before the data came.
    it.send(3 * STEP, STEP);
    it.work();
    assert_eq!(it.web.gets(), gets);
}

#[test]
fn a_closed_object_is_not_read_ahead() {
    let mut it = Ahead::open("");
    for n in 0..2 {
        it.send(n * STEP, STEP);
    }
    it.bench.send(90, 7, Payload::Close);
    assert_eq!(it.queue().aheads(), 1);
    // Its READs keep it.
    let object = it.bench.server.objects.get(7);
    assert!(object.is_none());
    for _ in 0..3 {
        it.work();
    }
    assert_eq!((it.queue().aheads(), it.web.gets()), (0, 2));
    assert_eq!(it.bench.server.counters.snapshot().ahead_errors, 0);
}

#[test]
fn a_full_cache_ends_it() {
    let mut it = Ahead::open("");
    let full = File::options().write(true).open("/dev/full").unwrap();
    it.bench.open_file(91, 7, b"web/image", &full);
    it.work();
    it.bench.server.patience = Patience::new(Duration::ZERO, Duration::from_secs(600));
    it.send(0, 1 << 20);
    it.send(1 << 20, 1 << 20);
    assert_eq!(it.queue().aheads(), 2);
    for _ in 0..3 {
        it.work();
    }
    assert_eq!(it.queue().aheads(), 0, "the rest is dropped");
    assert_eq!(it.web.gets(), 3);
    // Nor is anything for a while.
    it.send(2 << 20, STEP);
    it.send((2 << 20) + STEP, STEP);
    assert_eq!(it.queue().aheads(), 0);
    let numbers = it.bench.server.counters.snapshot();
    assert_eq!((numbers.ahead_bytes, numbers.fills_without_space), (0, 2));
}

#[test]
fn what_fails_is_counted_and_nobodys_error() {
    let broken = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&broken);
    let mut it = Ahead::before_gets("requests.retries = 0", move || {
        if now.load(SeqCst) {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    });
    it.send(0, 1 << 20);
    it.work();
    it.send(1 << 20, 1 << 20);
    it.work();
    broken.store(true, SeqCst);
    it.work();
    assert_eq!(it.queue().aheads(), 0, "the rest is not tried");
    let numbers = it.bench.server.counters.snapshot();
    assert_eq!((numbers.ahead_errors, numbers.source_errors), (1, 0));
    // Its reader comes, and gets what there is by then.
    broken.store(false, SeqCst);
    it.send(2 << 20, 1 << 20);
    it.work();
    it.assert_cached(3 << 20);
    assert_eq!(it.queue().aheads(), 0, "it begins anew");
}

#[test]
fn a_limit_of_bandwidth_is_for_readers_first() {
    let mut it = Ahead::open("requests.bandwidth = 8388608");
    for n in 0..2 {
        it.send(n * STEP, STEP);
        it.work();
    }
    let gets = it.web.gets();
    // Two seconds are spent.
    let object = it.bench.server.objects.get(7).unwrap();
    let blob = object.blob.as_remote().unwrap();
    assert_eq!(blob.turn_if_free(16 << 20), Ok(()));
    it.work();
    assert_eq!((it.queue().aheads(), it.web.gets()), (1, gets), "put off");
    // A miss comes later, and is first.
    it.send(SIZE - STEP, STEP);
    it.work();
    assert_eq!((it.queue().aheads(), it.web.gets()), (1, gets + 1));
    it.work_off();
    it.assert_cached(4 * STEP);
}
