// SPDX-License-Identifier: MIT OR Apache-2.0

//! Threads that wait for remote sources, so that nobody else does.
//!
//! The threads that read the device answer by themselves what costs a system call or two: CLOSE, and
//! everything about files. What may take seconds, an OPEN or a READ of a remote blob, they put into the queue
//! of its source, which has threads of its own, as many as that source may be sent requests at a time. So a
//! slow source holds up its own readers and nobody else's.
//!
//! Each queue is as long as the kernel makes it: a READ has a reader that waits, or has been killed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use cachefiles_proto::Open;
use cachefiles_proto::Read;

use crate::objects::Object;
use crate::source::names::Sources;

/// What takes time.
#[derive(Debug)]
pub enum Job {
    /// An OPEN, and when it came.
    Open(Open, Instant),
    /// A READ of an object, and when it came.
    Read(Arc<Object>, Read, Instant),
}

/// One source's queue.
#[derive(Debug)]
pub struct Queue {
    threads: usize,
    jobs: Mutex<VecDeque<Job>>,
    added: Condvar,
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
        let queue = |threads| Queue {
            threads,
            jobs: Mutex::default(),
            added: Condvar::new(),
        };
        let queues = sources.iter().map(|source| {
            let remote = source.as_remote()?;
            Some(queue(remote.limits().concurrency))
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
    /// How many threads are to serve it.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Adds a job.
    pub fn push(&self, job: Job) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.push_back(job);
        drop(jobs);
        self.added.notify_one();
    }

    /// Takes the oldest job; waits until there is one.
    #[must_use]
    pub fn pop(&self) -> Job {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = jobs.pop_front() {
                return job;
            }
            jobs = self
                .added
                .wait(jobs)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
