// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the keeper waits for: signals, its clients, its workers, and the time.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;

use super::log_failure;
use super::Keeper;
use crate::child::Child;
use crate::handover::Word;
use crate::takeover::Event;

impl Keeper {
    /// Waits for the next thing that the machine has to know.
    pub(super) fn wait(&mut self) -> anyhow::Result<Event> {
        loop {
            if self.stops > 0 {
                self.stops -= 1;
                return Ok(Event::Stop);
            }
            if self.take_wish() {
                return Ok(Event::Upgrade);
            }
            let now = Instant::now();
            let deadline = self.takeover.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(Event::Deadline);
            }
            let others = [self.watchdog.tell(now), self.control.deadline()];
            let wake_up = deadline
                .into_iter()
                .chain(others.into_iter().flatten())
                .min();
            let ready = self.poll(wake_up.map(|it| it.saturating_duration_since(now)))?;
            self.control.go_on(&ready.control);
            self.run_errands();
            if ready.report {
                self.signals.report.take();
                log_failure(self.report());
            }
            if ready.stop {
                self.stops += self.signals.stop.take();
                continue;
            }
            // Readiness before death: a worker that did both in between has served.
            if ready.worker.word {
                let word = self.worker.as_mut().and_then(Child::take_word);
                match word {
                    Some(Word::Ready) => return Ok(Event::Ready),
                    Some(Word::Stale { number, name }) => self.make_stale(number, &name),
                    Some(Word::Prepared { .. } | Word::Failed(_)) | None => {}
                }
            }
            if ready.worker.death {
                if let Some(event) = self.bury()? {
                    return Ok(event);
                }
            }
            if let Some(event) = self.hear_successor(&ready.successor)? {
                return Ok(event);
            }
        }
    }

    fn poll(&self, timeout: Option<Duration>) -> anyhow::Result<Ready> {
        let timeout = timeout.map(Timespec::try_from).transpose()?;
        let mut fds = vec![
            PollFd::new(&self.signals.stop, PollFlags::IN),
            PollFd::new(&self.signals.report, PollFlags::IN),
            PollFd::new(&self.clerk, PollFlags::IN),
        ];
        let control = fds.len();
        fds.extend(self.control.poll_fds());
        let worker = fds.len();
        fds.extend(fds_of(self.worker.as_ref()));
        let successor = fds.len();
        fds.extend(fds_of(self.successor.as_ref()));
        // Only to be looked at once more.
        fds.extend(
            self.discarded
                .iter()
                .map(|child| PollFd::new(child.pidfd(), PollFlags::IN)),
        );
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let is_ready = |index: usize| ready.get(index).is_some_and(|it| *it);
        let child = |first: usize, child: Option<&Child>| News {
            death: child.is_some() && is_ready(first),
            word: child.and_then(Child::channel_if_heard).is_some() && is_ready(first + 1),
        };
        Ok(Ready {
            stop: is_ready(0),
            report: is_ready(1),
            control: ready.get(control..worker).unwrap_or_default().to_vec(),
            worker: child(worker, self.worker.as_ref()),
            successor: child(successor, self.successor.as_ref()),
        })
    }
}

/// What `poll` found.
struct Ready {
    stop: bool,
    report: bool,
    /// Of what the control socket waits for.
    control: Vec<bool>,
    worker: News,
    successor: News,
}

/// Of a child.
pub(super) struct News {
    pub(super) death: bool,
    pub(super) word: bool,
}

/// What a child's news come by.
fn fds_of(child: Option<&Child>) -> impl Iterator<Item = PollFd<'_>> {
    child.into_iter().flat_map(|child| {
        let channel = child.channel_if_heard();
        let channel = channel.map(|channel| PollFd::new(channel, PollFlags::IN));
        std::iter::once(PollFd::new(child.pidfd(), PollFlags::IN)).chain(channel)
    })
}
