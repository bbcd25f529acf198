// SPDX-License-Identifier: MIT OR Apache-2.0

//! An upgrade, as far as it is not the [`Takeover`](crate::takeover::Takeover) machine's: who asked for it, and
//! what they are told.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context;
use rustix::event::poll;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::process::Signal;
use tracing::error;
use tracing::info;
use tracing::warn;

use super::wait::News;
use super::Keeper;
use crate::clients::ClientId;
use crate::control::server::Wish;
use crate::control::Answer;
use crate::counters::count;
use crate::handover::Word;
use crate::takeover::Event;
use crate::takeover::Failure;
use crate::takeover::State;
use crate::takeover::END_WITHIN;

/// An upgrade that is under way.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// Who waits for its end.
    pub(super) client: ClientId,
    /// To what.
    pub(super) program: PathBuf,
    /// The version of a keeper's state that the program can go on from, once it has said so.
    pub(super) resumes: Option<u8>,
    /// The successor was told to begin: it is the worker.
    begun: bool,
    /// What the successor said, or how it ended.
    reason: Option<String>,
}

impl Keeper {
    /// Takes what a client wants, if one does; true if an upgrade is to begin.
    pub(super) fn take_wish(&mut self) -> bool {
        while let Some(wish) = self.control.take_wish() {
            match self.upgrade_to(&wish) {
                Ok(program) => {
                    info!(program = %program.display(), "upgrade");
                    self.upgrade = Some(Upgrade {
                        client: wish.client,
                        program,
                        resumes: None,
                        begun: false,
                        reason: None,
                    });
                    return true;
                }
                Err(error) => {
                    warn!(error = format!("{error:#}"), "no upgrade");
                    let answer = Answer::error(format!("{error:#}"));
                    self.control.answer(wish.client, &answer);
                }
            }
        }
        false
    }

    /// To what; or why not now.
    fn upgrade_to(&self, wish: &Wish) -> anyhow::Result<PathBuf> {
        ensure!(self.upgrade.is_none(), "another upgrade is under way");
        ensure!(
            self.takeover.state() == State::Serving,
            "no worker serves just now: try again when one does"
        );
        let program = match &wish.program {
            Some(program) => program.clone(),
            None => {
                let program = self.launcher.program();
                program
                    .context("nobody knows where the keeper's program was: name one")?
                    .to_owned()
            }
        };
        ensure!(
            program.is_absolute(),
            "{} is no absolute path",
            program.display()
        );
        Ok(program)
    }

    /// Starts the successor; false if that fails.
    pub(super) fn start_successor(&mut self) -> bool {
        let Some(upgrade) = &mut self.upgrade else {
            return false;
        };
        let (device, counters) = (self.device.as_fd(), self.counters.as_fd());
        match self
            .launcher
            .start_successor(&upgrade.program, device, counters)
        {
            Ok(child) => {
                info!(pid = child.pid(), "successor started");
                self.successor = Some(child);
                true
            }
            Err(error) => {
                upgrade.reason = Some(format!("{error:#}"));
                false
            }
        }
    }

    /// What the successor says, or its end.
    pub(super) fn hear_successor(&mut self, news: &News) -> anyhow::Result<Option<Event>> {
        self.bury_discarded();
        let (Some(successor), Some(upgrade)) = (&mut self.successor, &mut self.upgrade) else {
            return Ok(None);
        };
        let mut is_prepared = false;
        if news.word {
            match successor.take_word() {
                Some(Word::Prepared { resumes }) => {
                    upgrade.resumes = Some(resumes);
                    is_prepared = true;
                }
                // Its end follows.
                Some(Word::Failed(reason)) => upgrade.reason = Some(reason),
                // It reads from the device while another worker does: it is killed when the upgrade is given up.
                Some(Word::Ready) => {
                    upgrade.reason = Some("it did not wait until it was told to begin".to_owned());
                    return Ok(Some(Event::SuccessorFailed));
                }
                // It has not been told to begin.
                Some(Word::Stale { .. }) | None => {}
            }
        }
        // Death before readiness: the worker that serves must not be ended for one that has gone.
        if news.death || is_prepared {
            if let Some(status) = successor.try_wait()? {
                let said = match upgrade.resumes {
                    Some(_) => "it was prepared, and ended",
                    None => "it said nothing",
                };
                let reason = upgrade.reason.take();
                let reason = reason.unwrap_or_else(|| said.to_owned());
                upgrade.reason = Some(format!("{reason} ({status})"));
                self.successor = None;
                return Ok(Some(Event::SuccessorFailed));
            }
        }
        Ok(is_prepared.then_some(Event::Prepared))
    }

    /// Takes note of the end of successors that were killed.
    fn bury_discarded(&mut self) {
        self.discarded
            .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
    }

    /// Waits for the end of successors that were killed: as long as there is one, somebody has the device.
    pub(super) fn await_discarded(&mut self) {
        let by = Instant::now() + END_WITHIN;
        loop {
            self.bury_discarded();
            let Some(child) = self.discarded.first() else {
                return;
            };
            let left = by.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(child.pidfd(), PollFlags::IN)];
            let polled = match Timespec::try_from(left) {
                Ok(left) if left != Timespec::default() => poll(&mut fds, Some(&left)),
                _ => Ok(0),
            };
            match polled {
                Ok(1..) | Err(Errno::INTR) => {}
                _ => {
                    warn!(
                        pid = child.pid(),
                        "a successor that was killed has not ended"
                    );
                    return;
                }
            }
        }
    }

    /// Makes the successor the worker, and tells it to begin.
    pub(super) fn promote(&mut self) {
        let Some(mut successor) = self.successor.take() else {
            return;
        };
        count(&self.counters.worker_starts, 1);
        successor.go(self.counters.snapshot().served());
        self.reporter.set_worker(Some(successor.pid()));
        self.worker = Some(successor);
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.begun = true;
        }
    }

    /// A worker serves; if it is of an upgrade, the keeper follows it. That returns only if it cannot.
    pub(super) fn complete_upgrade(&mut self) {
        let Some(upgrade) = self.upgrade.take_if(|upgrade| upgrade.begun) else {
            return;
        };
        let Some(worker_pid) = self.worker.as_ref().map(crate::child::Child::pid) else {
            return;
        };
        self.launcher.set_program(upgrade.program.clone());
        let answer = |kept| Answer::Upgraded {
            program: upgrade.program.clone(),
            worker_pid,
            kept,
        };
        let Err(error) = self.become_program(&upgrade, &answer(None));
        error!(
            error = format!("{error:#}"),
            "the keeper stays the program that it was"
        );
        let kept = Some(format!("{error:#}"));
        self.control.answer(upgrade.client, &answer(kept));
    }

    /// A worker has died; if it is the one that an upgrade was for, that has failed.
    pub(super) fn note_death(&mut self) {
        if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.begun) {
            self.end_upgrade(
                "the new worker ended after it was told to begin; another one follows",
            );
        }
    }

    /// Gives up an upgrade.
    pub(super) fn abandon_upgrade(&mut self, failure: Failure) {
        let reason = self
            .upgrade
            .as_mut()
            .and_then(|upgrade| upgrade.reason.take());
        let reason = match failure {
            Failure::SuccessorFailed => format!(
                "the new worker failed: {}",
                reason.as_deref().unwrap_or("see the log")
            ),
            Failure::Late => "the new worker was not prepared in time".to_owned(),
            Failure::Stuck => "the old worker does not end".to_owned(),
        };
        self.end_upgrade(&reason);
    }

    /// Ends an upgrade that is under way, if one is.
    pub(super) fn end_upgrade(&mut self, reason: &str) {
        if let Some(successor) = self.successor.take() {
            successor.signal(Signal::KILL);
            self.discarded.push(successor);
        }
        if let Some(upgrade) = self.upgrade.take() {
            error!(reason, program = %upgrade.program.display(), "upgrade failed");
            self.control.answer(upgrade.client, &Answer::error(reason));
        }
    }
}
