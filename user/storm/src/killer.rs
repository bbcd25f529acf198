// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who kills: the worker all the time, now and then the keeper with it.
//!
//! The killer also is the *holder*: it has a copy of the device's descriptor, which keeps the cache
//! and all who wait for data alive while there is neither keeper nor worker.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Pid;
use serde_json::{Map, Value};

use crate::daemon::{adopt_orphans, end_orphans, kill_worker, wait_for, Daemon, Setup};

/// How long a takeover may last before a worker serves again, on the reference machine.
const TAKEOVER_WITHIN: Duration = Duration::from_secs(60);
/// One worker in so many is killed before it serves, too.
const EARLY_ONE_IN: u32 = 8;
/// The longest life of such a worker after it was seen.
const EARLY_WITHIN_MS: u64 = 30;

/// What is to be done.
pub(crate) struct Plan {
    /// So many workers that serve are killed.
    pub(crate) kills: u64,
    /// The keeper is killed with each so-manieth worker; 0: never.
    pub(crate) keeper_every: u64,
    /// Shortest and longest time that a worker serves, in milliseconds. The longest one is as long
    /// as the worker took to appear, if that is more: on a slow machine workers that live too short
    /// to answer anything would be all that the readers get.
    pub(crate) life_ms: (u64, u64),
}

/// What was done so far.
#[derive(Default)]
pub(crate) struct Killed {
    /// Workers that served, among them those that went with their keeper.
    pub(crate) workers: AtomicU64,
    /// Workers that did not serve yet.
    pub(crate) early: AtomicU64,
    /// Keepers.
    pub(crate) keepers: AtomicU64,
}

/// The killer, between its kills.
pub(crate) struct Killer {
    setup: Setup,
    daemon: Daemon,
    holder: OwnedFd,
    /// The counters of all keepers but the last.
    counters: Map<String, Value>,
    rng: ChaCha8Rng,
}

impl Killer {
    /// Starts the daemon and gets a copy of its device.
    ///
    /// # Errors
    /// As [`Daemon::start`] and [`Daemon::device`].
    pub(crate) fn start(setup: Setup, seed: u64) -> Result<Self> {
        adopt_orphans()?;
        let daemon = Daemon::start(&setup, None)?;
        let holder = daemon.device()?;
        Ok(Self {
            setup,
            daemon,
            holder,
            counters: Map::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        })
    }

    /// Kills until all of `plan` is done, or `stop` is set.
    ///
    /// # Errors
    /// When the daemon ends by itself, or no worker serves in time after a kill.
    pub(crate) fn run(&mut self, plan: &Plan, stop: &AtomicBool, killed: &Killed) -> Result<()> {
        let mut last: Option<Pid> = None;
        while killed.workers.load(Ordering::Relaxed) < plan.kills {
            let daemon = &mut self.daemon;
            let gone = Instant::now();
            let serves = wait_for("a worker that serves", TAKEOVER_WITHIN, || {
                if let Some(status) = daemon.ended()? {
                    anyhow::bail!("the keeper ended by itself: {status}");
                }
                let fresh = daemon.worker().filter(|pid| Some(*pid) != last);
                Ok(fresh.is_some() || stop.load(Ordering::Relaxed)).map(|done| done.then_some(()))
            });
            if stop.load(Ordering::Relaxed) {
                break;
            }
            serves?;
            // The life of a worker is the point here, not a way to wait.
            let (least, most) = plan.life_ms;
            let most = most.max(u64::try_from(gone.elapsed().as_millis())?);
            let life = self.rng.random_range(least..=most);
            thread::sleep(Duration::from_millis(life));
            let count = killed.workers.load(Ordering::Relaxed) + 1;
            if plan.keeper_every > 0 && count % plan.keeper_every == 0 {
                let worker = self.kill_both(last)?;
                killed.keepers.fetch_add(1, Ordering::Relaxed);
                if let Some(pid) = worker {
                    killed.workers.fetch_add(1, Ordering::Relaxed);
                    last = Some(pid);
                }
            } else if let Some(pid) = kill_worker(&self.setup.run_dir, last) {
                killed.workers.fetch_add(1, Ordering::Relaxed);
                last = Some(pid);
                if self.rng.random_ratio(1, EARLY_ONE_IN) {
                    if let Some(early) = self.kill_early(pid) {
                        killed.early.fetch_add(1, Ordering::Relaxed);
                        // Should it just have said that it serves: it is dead all the same.
                        last = Some(early);
                    }
                }
            }
        }
        Ok(())
    }

    /// Kills the successor of `dead` before it serves, wherever it is on its way there.
    fn kill_early(&mut self, dead: Pid) -> Option<Pid> {
        let daemon = &self.daemon;
        let successor = wait_for("a successor", Duration::from_secs(5), || {
            Ok(daemon.successor(dead))
        });
        let pid = successor.ok()?;
        let life = self.rng.random_range(0..=EARLY_WITHIN_MS);
        thread::sleep(Duration::from_millis(life));
        self.daemon.kill_early(pid).then_some(pid)
    }

    /// Kills keeper and worker, in either order, and starts the next keeper with the holder's
    /// device. Returns the worker if it served and was not `last`.
    fn kill_both(&mut self, last: Option<Pid>) -> Result<Option<Pid>> {
        // What is counted after this is lost with the keeper.
        add(&mut self.counters, &self.daemon.stats()?);
        let run_dir = &self.setup.run_dir;
        let worker = if self.rng.random() {
            // The keeper first: its worker may answer a few more requests.
            self.daemon.kill_keeper()?;
            kill_worker(run_dir, last)
        } else {
            // The worker first: the keeper may have a successor on its way.
            let worker = kill_worker(run_dir, last);
            self.daemon.kill_keeper()?;
            worker
        };
        end_orphans()?;
        let device = self.holder.try_clone().context("the holder's device")?;
        self.daemon = Daemon::start(&self.setup, Some(device)).context("after a keeper's death")?;
        Ok(worker)
    }

    /// The counters of all keepers together, and the end of the last one.
    ///
    /// # Errors
    /// When it does not say or does not end.
    pub(crate) fn finish(mut self) -> Result<Value> {
        let stats = self.daemon.stats().context("the daemon's counters")?;
        add(&mut self.counters, &stats);
        let status = self.daemon.stop()?;
        anyhow::ensure!(status.success(), "the daemon ended with {status}");
        Ok(Value::Object(self.counters))
    }
}

/// Adds the numbers of `more` to those in `sum`; what is no sum is left out.
fn add(sum: &mut Map<String, Value>, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        let (Some(n), false) = (value.as_u64(), name.ends_with("_pid")) else {
            continue;
        };
        let before = sum.get(name).and_then(Value::as_u64).unwrap_or(0);
        sum.insert(name.clone(), Value::from(before + n));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counters_of_keepers_are_added() {
        let mut sum = Map::new();
        add(&mut sum, &json!({"keeper_pid": 7, "reads": 3, "name": "x"}));
        add(&mut sum, &json!({"keeper_pid": 8, "reads": 4, "opens": 1}));
        add(&mut sum, &Value::Null);
        assert_eq!(Value::Object(sum), json!({"reads": 7, "opens": 1}));
    }
}
