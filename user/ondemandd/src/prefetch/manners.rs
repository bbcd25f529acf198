// SPDX-License-Identifier: MIT OR Apache-2.0

//! Giving way: what is prefetched is wanted some time, what others read is wanted now.
//!
//! The keeper knows how many requests are in flight, not whose they are. A thread that reads has one at most,
//! since the kernel has it wait for each; what is in flight beyond that is of others.

use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tracing::debug;

use crate::control;

/// The first pause; each further one of a part is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// How long one part is held up, whatever others read.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How long the keeper may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// How long one that did not is left alone.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What the threads of one `prefetch` share.
#[derive(Debug)]
pub(super) struct Manners {
    run_dir: PathBuf,
    /// Threads that read.
    reading: AtomicU64,
    /// The pauses so far, of all threads, in milliseconds.
    paused_ms: AtomicU64,
    /// The keeper is not asked before.
    ask_from: Mutex<Option<Instant>>,
}

/// How long one part has been held up.
#[derive(Debug)]
struct Wait {
    waited: Duration,
    next: Duration,
}

impl Manners {
    /// With the keeper that uses this run directory, if there is one.
    pub(super) fn new(run_dir: &Path) -> Self {
        Manners {
            run_dir: run_dir.to_owned(),
            reading: AtomicU64::new(0),
            paused_ms: AtomicU64::new(0),
            ask_from: Mutex::new(None),
        }
    }

    /// Reads a part, after those whose requests are in flight.
    pub(super) fn read<T>(&self, part: impl FnOnce() -> T) -> T {
        let mut wait = Wait::new();
        while let Some(pause) = self.others().and_then(|others| wait.pause(others)) {
            thread::sleep(pause);
            let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            self.paused_ms.fetch_add(millis, SeqCst);
        }
        self.reading.fetch_add(1, SeqCst);
        let result = part();
        self.reading.fetch_sub(1, SeqCst);
        result
    }

    /// For how many milliseconds all threads together have made way for others.
    pub(super) fn paused_ms(&self) -> u64 {
        self.paused_ms.load(SeqCst)
    }

    /// How many requests of others are in flight; `None` if nobody says.
    fn others(&self) -> Option<u64> {
        let mut ask_from = self.ask_from.lock().unwrap_or_else(PoisonError::into_inner);
        if ask_from.is_some_and(|time| Instant::now() < time) {
            return None;
        }
        // A thread may begin or end a part meanwhile: then it is taken for one that reads.
        let before = self.reading.load(SeqCst);
        let answer = control::client::stats(&self.run_dir, ANSWER_WITHIN);
        if let Ok(Some(report)) = answer {
            let own = before.max(self.reading.load(SeqCst));
            return Some(report.in_flight().saturating_sub(own));
        }
        debug!(?answer, "the keeper does not say what others read");
        *ask_from = Some(Instant::now() + ASK_AGAIN_AFTER);
        None
    }
}

impl Wait {
    fn new() -> Self {
        Wait {
            waited: Duration::ZERO,
            next: FIRST_PAUSE,
        }
    }

    /// How long to pause while so many requests of others are in flight; `None`: go on.
    fn pause(&mut self, others: u64) -> Option<Duration> {
        let pause = self.next.min(LONGEST_WAIT.saturating_sub(self.waited));
        if others == 0 || pause.is_zero() {
            return None;
        }
        self.waited += pause;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::io::BufReader;
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::control::Answer;
    use crate::rundir;

    #[test]
    fn nobody_is_no_reason_to_pause() {
        assert_eq!(Wait::new().pause(0), None);
    }

    #[test]
    fn a_part_is_held_up_for_a_second_at_most() {
        let mut wait = Wait::new();
        let pauses: Vec<Duration> = std::iter::from_fn(|| wait.pause(1)).collect();
        let millis: Vec<u128> = pauses.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [10, 20, 40, 80, 160, 160, 160, 160, 160, 50]);
        assert_eq!(wait.pause(9), None);
        let mut short = Wait::new();
        assert!(short.pause(2).is_some());
        assert_eq!(short.pause(0), None, "others have what they wanted");
    }

    /// A keeper that says in turn how many requests are in flight, to so many clients; then it is gone.
    fn keeper(run_dir: &Path, in_flight: Vec<u64>) -> thread::JoinHandle<()> {
        let path = run_dir.join(rundir::CONTROL);
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for in_flight in in_flight {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let mut report = crate::report::tests::report();
                report.counters.requests_begun = in_flight;
                let report = Box::new(report);
                let text = serde_json::to_string(&Answer::Stats { report }).unwrap();
                stream.write_all(text.as_bytes()).unwrap();
                stream.write_all(b"\n").unwrap();
            }
            std::fs::remove_file(path).unwrap();
        })
    }

    #[test]
    fn a_part_waits_until_others_have_what_they_want() {
        let root = tempfile::tempdir().unwrap();
        let keeper = keeper(root.path(), vec![3, 2, 0]);
        let manners = Manners::new(root.path());
        assert_eq!(manners.read(|| 7), 7);
        keeper.join().unwrap();
        assert_eq!(manners.paused_ms(), 10 + 20);
        // All were asked for; that there is no keeper now holds up nobody.
        assert_eq!(manners.read(|| 8), 8);
        assert_eq!(manners.others(), None);
        assert!(manners.ask_from.lock().unwrap().is_some());
    }

    #[test]
    fn own_threads_are_no_others() {
        let root = tempfile::tempdir().unwrap();
        let keeper = keeper(root.path(), vec![1, 1, 2]);
        let manners = Manners::new(root.path());
        manners.reading.store(1, SeqCst);
        assert_eq!(manners.read(|| manners.others()), Some(0));
        assert_eq!(manners.others(), Some(1));
        keeper.join().unwrap();
    }
}
