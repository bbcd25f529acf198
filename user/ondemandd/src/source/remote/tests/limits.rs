// SPDX-License-Identifier: MIT OR Apache-2.0

//! Time, number of requests and bandwidth have limits.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Barrier;
use std::time::Duration;

use super::*;

#[test]
fn a_slow_drip_ends_at_the_deadline() {
    // The answer to HEAD must be there in the time of a try.
    let slow = u64::from(percent_now().div_ceil(100));
    let requests = RequestLimits {
        try_ms: 200 * slow,
        total_ms: 600 * slow,
        ..quick()
    };
    let bench = Bench::with(requests, |asked, stream| {
        if asked.method == "HEAD" {
            return well(asked, stream, &blob(SIZE), ETAG);
        }
        partial(stream, asked.range.unwrap_or((0, 0)), SIZE, ETAG)?;
        loop {
            // Each byte comes in time.
            stream.write_all(&[7])?;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let blob = bench.blob();
    let start = Instant::now();
    let error = blob.read_at(&mut [0; 8192], 4096).unwrap_err();
    let total = Duration::from_millis(600 * slow);
    assert!(start.elapsed() >= total, "{error}");
    assert_eq!(overdue(start.elapsed(), SOON + total), None);
    assert!(matches!(error, ReadError::TooSlow(_)), "{error}");
}

#[test]
fn silence_ends_at_the_deadline() {
    let requests = RequestLimits {
        try_ms: 50,
        total_ms: 5_000,
        retries: 1,
        ..quick()
    };
    let bench = Bench::with(requests, |_, _| {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    });
    let error = bench.remote.lookup(b"image").unwrap_err();
    assert!(matches!(error, LookupError::Remote(_)), "{error}");
}

#[test]
fn requests_at_a_time_are_limited() {
    const LIMIT: usize = 2;
    let requests = RequestLimits {
        concurrency: LIMIT,
        ..quick()
    };
    let now = AtomicUsize::new(0);
    let most = Arc::new(AtomicUsize::new(0));
    // Two meet here each time, so no limit below two passes either.
    let meet = Barrier::new(LIMIT);
    let seen = Arc::clone(&most);
    let data = blob(SIZE);
    let bench = Bench::with(requests, move |asked, stream| {
        if asked.method == "HEAD" {
            return well(asked, stream, &data, ETAG);
        }
        seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        meet.wait();
        now.fetch_sub(1, SeqCst);
        well(asked, stream, &data, ETAG)
    });
    let blob = bench.blob();
    std::thread::scope(|scope| {
        for _ in 0..3 * LIMIT {
            scope.spawn(|| blob.read_at(&mut [0; 4096], 0).unwrap());
        }
    });
    assert_eq!(most.load(SeqCst), LIMIT);
}

#[test]
fn bandwidth_is_limited() {
    let requests = RequestLimits {
        bandwidth: 100_000,
        ..quick()
    };
    let data = blob(SIZE);
    let bench = Bench::with(requests, move |asked, stream| {
        well(asked, stream, &data, ETAG)
    });
    let blob = bench.blob();
    let start = Instant::now();
    // The first is free but counts, the second waits for it, less the burst.
    blob.read_at(&mut [0; 50_000], 0).unwrap();
    blob.read_at(&mut [0; 1], 0).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(400));
}
