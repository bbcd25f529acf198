// SPDX-License-Identifier: MIT OR Apache-2.0

//! Threads that wait for remote sources, so that nobody else does.
//!
//! The threads that read the device answer by themselves what costs a system call or two: CLOSE, and
//! everything about files. What may take seconds, an OPEN or a READ of a remote blob, they put into the queue
//! of its source, which has threads of its own, as many as that source may be sent requests at a time. So a
//! slow source holds up its own readers and nobody else's.
//!
//! Each queue is as long as the kernel makes it: a READ has a reader that waits, or has been killed. What is
//! to be read ahead has nobody, so it gives way: it is begun when nothing else waits, never by the last
//! thread that has nothing to do, and of too much of it the oldest is dropped, which its readers have most
//! likely passed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Instant;

use cachefiles_proto::Open;
use cachefiles_proto::Read;

use crate::objects::Object;
use crate::source::names::Sources;

/// So many parts wait to be read ahead, at most: 128 MiB of the shortest.
const MOST_AHEADS: usize = 512;

/// What takes time.
#[derive(Debug)]
pub enum Job {
    /// An OPEN, and when it came.
    Open(Open, Instant),
    /// A READ of an object, and when it came.
    Read(Arc<Object>, Read, Instant),
    /// What somebody will read, perhaps.
    Ahead(Ahead),
}

/// A part of an object that is to be read ahead, in bytes: whole blocks, or whole chunks. It does not keep the
/// object open.
#[derive(Clone, Debug)]
pub struct Ahead {
    /// The object, while it is open.
    pub object: Weak<Object>,
    /// The part.
    pub range: Range<u64>,
}

/// One source's queue.
#[derive(Debug)]
pub struct Queue {
    threads: usize,
    state: Mutex<State>,
    added: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    aheads: VecDeque<Ahead>,
    /// Nothing is read ahead before.
    aheads_from: Option<Instant>,
    /// Threads that have a job.
    busy: usize,
}

/// What a thread finds in a queue.
enum Next {
    Job(Job),
    /// Nothing, until something is added or a thread has done its job.
    Nothing,
    /// Nothing, but at that time there may be.
    NothingUntil(Instant),
}

/// The queues of all remote sources.
#[derive(Debug, Default)]
pub struct Pools {
    /// By the places of the sources in [`Sources::iter`]; directories have none.
    queues: Vec<Option<Queue>>,
}

impl Pools {
    /// A queue for each remote source.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        let queues = sources.iter().map(|source| {
            let remote = source.as_remote()?;
            Some(Queue::new(remote.limits().concurrency))
        });
        Pools {
            queues: queues.collect(),
        }
    }

    /// The queue of a source, if it has one.
    #[must_use]
    pub fn of(&self, source: usize) -> Option<&Queue> {
        self.queues.get(source)?.as_ref()
    }

    /// All queues.
    pub fn iter(&self) -> impl Iterator<Item = &Queue> {
        self.queues.iter().flatten()
    }
}

impl Queue {
    fn new(threads: usize) -> Self {
        Queue {
            threads,
            state: Mutex::default(),
            added: Condvar::new(),
        }
    }

    /// How many threads are to serve it.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Adds a job.
    pub fn push(&self, job: Job) {
        let mut state = self.lock();
        match job {
            Job::Open(..) | Job::Read(..) => state.jobs.push_back(job),
            Job::Ahead(ahead) => {
                if state.aheads.len() >= MOST_AHEADS {
                    state.aheads.pop_front();
                }
                state.aheads.push_back(ahead);
            }
        }
        drop(state);
        self.added.notify_one();
    }

    /// Puts back what was to be read ahead: it, and the rest, is not begun before that time.
    pub fn put_off(&self, ahead: Ahead, until: Instant) {
        let mut state = self.lock();
        state.aheads.push_front(ahead);
        state.aheads_from = Some(until);
        drop(state);
        self.added.notify_one();
    }

    /// Drops what waits to be read ahead and is of no use.
    pub fn drop_aheads(&self, is_useless: impl Fn(&Ahead) -> bool) {
        self.lock().aheads.retain(|ahead| !is_useless(ahead));
    }

    /// How many parts wait to be read ahead.
    #[must_use]
    pub fn aheads(&self) -> usize {
        self.lock().aheads.len()
    }

    /// Takes the oldest OPEN or READ, or else what is to be read ahead, and does it; waits until there is some.
    pub fn serve(&self, work: impl FnOnce(Job)) {
        let job = self.take();
        work(job);
        // Who waits for that need not be told: this thread comes back.
        self.lock().busy -= 1;
    }

    /// Waits for a job; the thread is busy then.
    fn take(&self) -> Job {
        let mut state = self.lock();
        loop {
            state = match state.next(self.threads, Instant::now()) {
                Next::Job(job) => {
                    state.busy += 1;
                    return job;
                }
                Next::Nothing => self
                    .added
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Next::NothingUntil(time) => {
                    let within = time.saturating_duration_since(Instant::now());
                    let woken = self.added.wait_timeout(state, within);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            }
        }
    }

    /// Nobody panics while holding the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What one of `threads` threads, which has nothing to do, is to do.
    fn next(&mut self, threads: usize, now: Instant) -> Next {
        if let Some(job) = self.jobs.pop_front() {
            return Next::Job(job);
        }
        // With this one, all but one would be busy.
        if self.aheads.is_empty() || self.busy + 1 >= threads {
            return Next::Nothing;
        }
        match self.aheads_from {
            Some(time) if time > now => Next::NothingUntil(time),
            _ => {
                let ahead = self.aheads.pop_front();
                ahead.map_or(Next::Nothing, |ahead| Next::Job(Job::Ahead(ahead)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// The deadline of what happens at once, on this machine.
    fn soon() -> Duration {
        ondemand_deadline::scaled(Duration::from_secs(20))
    }

    fn ahead(start: u64) -> Job {
        Job::Ahead(Ahead {
            object: Weak::new(),
            range: start..start + 4096,
        })
    }

    fn starts(queue: &Queue) -> Vec<u64> {
        let state = queue.lock();
        state.aheads.iter().map(|it| it.range.start).collect()
    }

    #[test]
    fn the_last_free_thread_reads_nothing_ahead() {
        let queue = Queue::new(3);
        for start in [0, 1, 2] {
            queue.push(ahead(start));
        }
        let now = Instant::now();
        let mut state = queue.lock();
        for busy in [0, 1] {
            state.busy = busy;
            assert!(matches!(state.next(3, now), Next::Job(Job::Ahead(_))));
        }
        state.busy = 2;
        assert!(matches!(state.next(3, now), Next::Nothing));
        // The only one there is.
        state.busy = 0;
        assert!(matches!(state.next(1, now), Next::Nothing));
        assert_eq!(state.aheads.len(), 1);
    }

    #[test]
    fn a_thread_that_is_done_makes_room() {
        let queue = Queue::new(2);
        let (tell, told) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        thread::scope(|scope| {
            queue.push(ahead(0));
            queue.push(ahead(1));
            let mut take = move |_: Job| {
                tell.send(()).unwrap();
                may_go.recv_timeout(soon()).unwrap();
            };
            let queue = &queue;
            scope.spawn(move || {
                queue.serve(&mut take);
                queue.serve(&mut take);
            });
            told.recv_timeout(soon()).unwrap();
            assert_eq!(queue.lock().busy, 1);
            assert_eq!(starts(queue), [1]);
            let next = queue.lock().next(2, Instant::now());
            assert!(matches!(next, Next::Nothing));
            go.send(()).unwrap();
            told.recv_timeout(soon()).unwrap();
            go.send(()).unwrap();
        });
        assert_eq!(queue.lock().busy, 0);
        assert_eq!(queue.aheads(), 0);
    }

    #[test]
    fn the_oldest_is_dropped_and_what_is_useless() {
        let queue = Queue::new(2);
        for start in 0..=MOST_AHEADS {
            queue.push(ahead(u64::try_from(start).unwrap()));
        }
        assert_eq!(queue.aheads(), MOST_AHEADS);
        queue.drop_aheads(|it| it.range.start > 3);
        assert_eq!(starts(&queue), [1, 2, 3]);
    }

    #[test]
    fn what_is_put_off_is_the_next_when_it_is_time() {
        let queue = Queue::new(2);
        queue.push(ahead(1));
        let now = Instant::now();
        let time = now + Duration::from_secs(1);
        let Job::Ahead(first) = ahead(0) else {
            unreachable!()
        };
        queue.put_off(first, time);
        let mut state = queue.lock();
        assert!(matches!(state.next(2, now), Next::NothingUntil(it) if it == time));
        let Next::Job(Job::Ahead(first)) = state.next(2, time) else {
            panic!("nothing");
        };
        assert_eq!(first.range.start, 0);
    }
}
