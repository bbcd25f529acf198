// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keeper: opens the device, binds the cache, and sees to it that a worker serves it.
//!
//! It decides nothing by itself: it turns what happens into events of the
//! [`Takeover`] machine, and carries the machine's actions out. It never reads from the device. A
//! thread of its own makes room in the cache; see `cull`.
//!
//! | module | what it is |
//! |---|---|
//! | `device` | how it comes by the device |
//! | `upgrade` | what it does for an upgrade that the machine cannot know |
//! | `resume` | how it becomes another program |
//! | `wait` | what it waits for |

mod device;
mod resume;
mod upgrade;
mod wait;

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use cachefiles_proto::Device;
use rustix::process::Signal;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use self::device::Obtained;
pub use self::resume::resume;
use self::resume::Fixed;
use self::upgrade::Upgrade;
use crate::child::Child;
use crate::child::Launcher;
use crate::clients::CLIENT_WITHIN;
use crate::config::settings::Settings;
use crate::control::server::Control;
use crate::control::server::ControlListener;
use crate::control::Answer;
use crate::counters::count;
use crate::counters::Counters;
use crate::cull;
use crate::evict::Clerk;
use crate::handover::EXIT_CACHE_DEAD;
use crate::metrics::server::MetricsServer;
use crate::record;
use crate::record::begin::Claim;
use crate::report::Reporter;
use crate::rundir;
use crate::rundir::RunDir;
use crate::signals::Signals;
use crate::systemd;
use crate::systemd::Watchdog;
use crate::takeover::Action;
use crate::takeover::Event;
use crate::takeover::Outcome;
use crate::takeover::Takeover;

struct Keeper {
    device: Device,
    counters: Arc<Counters>,
    reporter: Arc<Reporter>,
    run_dir: RunDir,
    signals: Signals,
    control: Control,
    launcher: Launcher,
    fixed: Fixed,
    /// The socket of the metrics, for the keeper's next program; their thread has it, too.
    metrics: Option<OwnedFd>,
    takeover: Takeover,
    /// The worker that runs, if one does.
    worker: Option<Child>,
    /// The one that prepares to take its place.
    successor: Option<Child>,
    /// Successors that were killed, and have not been seen to end.
    discarded: Vec<Child>,
    /// What is known of the upgrade that is under way.
    upgrade: Option<Upgrade>,
    /// The first worker has served, and `keeper.pid` is there.
    announced: bool,
    /// Stop signals that have come and were not yet told to the machine.
    stops: usize,
    watchdog: Watchdog,
    /// Who evicts what is stored.
    clerk: Clerk,
    /// That no other keeper uses the cache.
    _claim: Option<Claim>,
}

/// What a keeper is made of, whether it has just bound the cache or was another program until now.
struct Parts {
    device: Device,
    fixed: Fixed,
    counters: Arc<Counters>,
    /// How long it has served.
    uptime: Duration,
    run_dir: RunDir,
    signals: Signals,
    control: ControlListener,
    metrics: Option<MetricsServer>,
    launcher: Launcher,
    claim: Option<Claim>,
}

/// Binds the cache and keeps it served until a signal or the cache's death.
///
/// # Errors
///
/// The run directory, a source or the device cannot be used; or the kernel refuses to bind.
pub fn run(settings: &Settings, log: &str) -> anyhow::Result<Outcome> {
    let run_dir = RunDir::create(&settings.run_dir)?;
    // Signals from now on end the keeper in good order.
    let signals = Signals::install()?;
    let control = ControlListener::bind(&run_dir.path(rundir::CONTROL))?;
    let mut launcher = Launcher::new(settings, log)?;
    let counters = Arc::new(Counters::create()?);
    let metrics = settings.metrics.as_ref().map(MetricsServer::bind);
    let metrics = metrics.transpose()?;
    let metrics_at = metrics.as_ref().map(MetricsServer::address).transpose();
    let metrics_at = metrics_at.context("where metrics are served")?;
    let Obtained {
        device,
        dir,
        had_worker,
        module,
        claim,
    } = device::obtain(settings, &run_dir)?;
    launcher.set_record(&dir.join(record::FILE), module);
    let parts = Parts {
        device,
        fixed: Fixed {
            cache: dir,
            limits: settings.limits,
            metrics: metrics_at.map(|address| address.to_string()),
        },
        counters,
        uptime: Duration::ZERO,
        run_dir,
        signals,
        control,
        metrics,
        launcher,
        claim,
    };
    let (takeover, first) = Takeover::begin(had_worker);
    Keeper::assemble(parts, takeover)?.serve(first)
}

impl Keeper {
    /// Starts the keeper's threads; then signals are taken.
    fn assemble(parts: Parts, takeover: Takeover) -> anyhow::Result<Self> {
        let Parts {
            device,
            fixed,
            counters,
            metrics,
            ..
        } = parts;
        cull::start(&device, &fixed.cache, fixed.limits, &counters)?;
        let clerk = Clerk::start(&device, &fixed.cache, !parts.launcher.insists())?;
        let reporter = Reporter::resume(fixed.cache.clone(), Arc::clone(&counters), parts.uptime);
        let reporter = Arc::new(reporter);
        let socket = metrics.as_ref().map(MetricsServer::socket).transpose();
        let socket = socket.context("the socket of the metrics")?;
        if let Some(metrics) = metrics {
            metrics.start(Arc::clone(&reporter))?;
        }
        let sources = parts.launcher.sources().ok();
        parts.signals.unblock()?;
        Ok(Keeper {
            device,
            counters,
            control: Control::new(parts.control, Arc::clone(&reporter), sources, CLIENT_WITHIN),
            reporter,
            run_dir: parts.run_dir,
            signals: parts.signals,
            launcher: parts.launcher,
            fixed,
            metrics: socket,
            takeover,
            worker: None,
            successor: None,
            discarded: Vec::new(),
            upgrade: None,
            announced: false,
            stops: 0,
            watchdog: Watchdog::from_environment(),
            clerk,
            _claim: parts.claim,
        })
    }

    /// Keeps the cache served from the first action on.
    fn serve(mut self, first: Action) -> anyhow::Result<Outcome> {
        let outcome = self.run(first);
        if let Ok(Outcome::CacheDead) = outcome {
            // The next keeper is to bind another one.
            systemd::forget();
        }
        self.tidy_up();
        outcome
    }

    fn run(&mut self, first: Action) -> anyhow::Result<Outcome> {
        let mut action = first;
        loop {
            debug!(?action, state = ?self.takeover.state(), "keeper");
            let event = match self.carry_out(action)? {
                Step::Happened(event) => event,
                Step::Wait => self.wait()?,
                Step::End(outcome) => return Ok(outcome),
            };
            action = self.takeover.on(event, Instant::now());
        }
    }

    fn carry_out(&mut self, action: Action) -> anyhow::Result<Step> {
        match action {
            Action::Wait => {}
            Action::Start { restore } => return Ok(Step::Happened(self.start(restore))),
            Action::Announce => {
                log_failure(self.announce());
                self.complete_upgrade();
            }
            Action::StartSuccessor => {
                if !self.start_successor() {
                    return Ok(Step::Happened(Event::SuccessorFailed));
                }
            }
            Action::Relieve => {
                systemd::tell_status("the worker's successor is prepared");
                self.signal_worker(Signal::TERM);
            }
            Action::Go => self.promote(),
            Action::Abandon(failure) => {
                self.abandon_upgrade(failure);
                return Ok(Step::Happened(Event::Abandoned));
            }
            Action::Terminate => {
                self.end_upgrade("the keeper was asked to end");
                systemd::tell_stopping("the worker is asked to end");
                self.signal_worker(Signal::TERM);
            }
            Action::Kill => self.signal_worker(Signal::KILL),
            Action::Finish(outcome) => {
                self.end_upgrade("the keeper ends");
                systemd::tell_stopping("the keeper ends");
                return Ok(Step::End(outcome));
            }
        }
        Ok(Step::Wait)
    }

    fn start(&mut self, restore: bool) -> Event {
        let served = self.counters.snapshot().served();
        let device = self.device.as_fd();
        let counters = self.counters.as_fd();
        match self.launcher.start(device, counters, restore, served) {
            Ok(child) => {
                count(&self.counters.worker_starts, 1);
                debug!(pid = child.pid(), restore, "worker started");
                self.reporter.set_worker(Some(child.pid()));
                self.worker = Some(child);
                Event::Started
            }
            Err(error) => {
                error!(error = format!("{error:#}"), "cannot start a worker");
                Event::StartFailed
            }
        }
    }

    /// Says who serves, in the run directory first.
    fn announce(&mut self) -> anyhow::Result<()> {
        let Some(pid) = self.worker.as_ref().map(Child::pid) else {
            return Ok(());
        };
        info!(pid, "worker is ready");
        let written = self.write_pids(pid);
        let restarts = self.reporter.report().worker_restarts();
        systemd::tell_ready(&format!(
            "worker {pid} serves; workers restarted so far: {restarts}"
        ));
        written
    }

    /// The worker first, so that whoever finds the keeper finds the worker too.
    fn write_pids(&mut self, worker: u32) -> anyhow::Result<()> {
        self.run_dir
            .write(rundir::WORKER_PID, &format!("{worker}\n"))?;
        if !self.announced {
            let own = format!("{}\n", std::process::id());
            self.run_dir.write(rundir::KEEPER_PID, &own)?;
            self.announced = true;
        }
        Ok(())
    }

    fn signal_worker(&self, signal: Signal) {
        if let Some(worker) = &self.worker {
            info!(pid = worker.pid(), ?signal, "ending the worker");
            worker.signal(signal);
        }
    }

    /// Has a stored file made stale, for the worker.
    fn make_stale(&self, number: u8, name: &str) {
        let channel = self
            .worker
            .as_ref()
            .map(|worker| worker.channel().duplicate());
        match channel {
            Some(Ok(channel)) => self.clerk.make_stale(channel, number, name),
            Some(Err(error)) => error!(%error, "no descriptor left"),
            None => {}
        }
    }

    /// Has evicted what clients want to be, and answers those whose is.
    fn run_errands(&mut self) {
        while let Some((client, targets)) = self.control.take_errand() {
            if let Err(error) = self.clerk.evict(client, targets) {
                self.control
                    .answer(client, &Answer::error(format!("{error:#}")));
            }
        }
        while let Some((client, answer)) = self.clerk.take_done() {
            self.control.answer(client, &answer);
        }
    }

    /// Takes note of the worker's end.
    fn bury(&mut self) -> anyhow::Result<Option<Event>> {
        let Some(mut worker) = self.worker.take() else {
            return Ok(None);
        };
        let Some(status) = worker.try_wait()? else {
            self.worker = Some(worker);
            return Ok(None);
        };
        let served = self.counters.snapshot().served() != worker.served_before();
        self.counters.note_death();
        self.reporter.set_worker(None);
        self.launcher.note_end(worker.was_ready());
        warn!(pid = worker.pid(), %status, served, "worker ended");
        systemd::tell_status(&format!("worker {} ended: {status}", worker.pid()));
        log_failure(self.run_dir.remove(rundir::WORKER_PID));
        self.note_death();
        Ok(Some(Event::Died {
            served,
            cache_dead: is_cache_dead(status),
        }))
    }

    fn report(&self) -> anyhow::Result<()> {
        let report = self.reporter.report();
        let text = serde_json::to_string_pretty(&report).context("statistics")?;
        self.run_dir.write(rundir::STATS, &(text + "\n"))
    }

    /// Tells who waits, and waits for who was killed; leaves the last counters behind and takes the pids away.
    fn tidy_up(&mut self) {
        self.end_upgrade("the keeper ends");
        self.control.finish();
        self.await_discarded();
        log_failure(self.report());
        log_failure(self.run_dir.remove(rundir::CONTROL));
        log_failure(self.run_dir.remove(rundir::KEEPER_PID));
        log_failure(self.run_dir.remove(rundir::WORKER_PID));
    }
}

/// A run directory that cannot be written is no reason to stop serving.
fn log_failure(result: anyhow::Result<()>) {
    if let Err(error) = result {
        error!(error = format!("{error:#}"), "run directory");
    }
}

/// What an action led to.
enum Step {
    Wait,
    Happened(Event),
    End(Outcome),
}

fn is_cache_dead(status: ExitStatus) -> bool {
    status.code() == Some(i32::from(EXIT_CACHE_DEAD))
}
