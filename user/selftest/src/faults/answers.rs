// SPDX-License-Identifier: MIT OR Apache-2.0

//! A daemon's answers while something fails, and what may come of it.

use anyhow::bail;
use anyhow::ensure;
use anyhow::Result;
use cachefiles_proto::Message;

use super::rig::Rig;
use crate::harness::Daemon;
use crate::harness::Outcome;
use crate::harness::Task;

impl Rig<'_> {
    /// What has failed must have had a fault.
    ///
    /// # Errors
    ///
    /// There was none.
    pub fn blame(&self, what: &str, error: &dyn std::fmt::Display) -> Result<()> {
        let failed = self.injector.has_failed()?;
        ensure!(failed, "{what} failed without a fault: {error}");
        Ok(())
    }

    /// What a task has ended with: its output, or `None` if it failed, for which there must have been a
    /// fault.
    ///
    /// # Errors
    ///
    /// There was none; it was killed.
    pub fn judge(&self, what: &str, outcome: Outcome) -> Result<Option<Vec<u8>>> {
        match outcome {
            Outcome::Done(output) => Ok(Some(output)),
            Outcome::Failed(errno, _) => self.blame(what, &errno).map(|()| None),
            Outcome::Killed(signal) => bail!("{what} was killed by signal {signal}"),
        }
    }

    /// Serves a task while something may fail. A daemon's own call that fails so is made again, as
    /// daemons do.
    ///
    /// # Errors
    ///
    /// As [`Daemon::serve_with`]; a call failed, and there was no fault.
    pub fn serve(
        &self,
        daemon: &mut Daemon,
        task: &mut Task,
        mut answer: impl FnMut(&mut Daemon, Message) -> Result<()>,
    ) -> Result<Outcome> {
        match daemon.serve_with(task, &mut answer) {
            Err(error) if task.running()? => {
                self.blame("the daemon's call", &format!("{error:#}"))?;
                daemon.serve_with(task, answer)
            }
            ended => ended,
        }
    }

    /// Serves a task after something may have failed, as a daemon that goes on: an OPEN that is refused is
    /// closed, a READ whose data cannot be written is completed without.
    ///
    /// # Errors
    ///
    /// As [`Daemon::serve_with`]; a call failed, and there was no fault.
    pub fn serve_on(&self, daemon: &mut Daemon, task: &mut Task) -> Result<Outcome> {
        daemon.serve_with(task, |daemon, message| self.answer(daemon, message))
    }

    /// Answers as a daemon that goes on. What it cannot do must be for a fault of this run.
    ///
    /// # Errors
    ///
    /// There was none; what else a daemon cannot do.
    fn answer(&self, daemon: &mut Daemon, message: Message) -> Result<()> {
        let Message::Read(read) = message else {
            let refused = daemon.answer_or_close(message)?;
            return refused.map_or(Ok(()), |errno| self.blame("copen", &errno));
        };
        if let Err(error) = daemon.fill(&read) {
            self.blame("the fill", &format!("{error:#}"))?;
        }
        daemon.complete(&read)
    }
}
