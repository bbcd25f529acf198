// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keeper: opens the device, binds the cache, and sees to it that a worker serves it.
//!
//! It decides nothing by itself: it turns what happens into events of the
//! [`Takeover`] machine, and carries the machine's actions out. It never reads from the device. A
//! thread of its own makes room in the cache; see `cull`.

mod device;

use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use cachefiles_proto::Device;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::process::Signal;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use self::device::Obtained;
use crate::child::Child;
use crate::child::Launcher;
use crate::clients::CLIENT_WITHIN;
use crate::config::settings::Settings;
use crate::control::server::Control;
use crate::control::server::ControlListener;
use crate::counters::count;
use crate::counters::Counters;
use crate::cull;
use crate::metrics::server::MetricsServer;
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
use crate::worker::EXIT_CACHE_DEAD;

struct Keeper {
    device: Device,
    counters: Arc<Counters>,
    reporter: Arc<Reporter>,
    run_dir: RunDir,
    signals: Signals,
    control: Control,
    launcher: Launcher,
    takeover: Takeover,
    /// The worker that runs, if one does.
    worker: Option<Child>,
    /// The first worker has served, and `keeper.pid` is there.
    announced: bool,
    /// Stop signals that have come and were not yet told to the machine.
    stops: usize,
    watchdog: Watchdog,
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
    let launcher = Launcher::new(settings, log)?;
    let counters = Arc::new(Counters::create()?);
    let metrics = settings.metrics.as_ref().map(MetricsServer::bind);
    let metrics = metrics.transpose()?;
    let Obtained {
        device,
        dir,
        had_worker,
    } = device::obtain(settings, &run_dir)?;
    cull::start(&device, &dir, settings.limits, &counters)?;
    let reporter = Arc::new(Reporter::new(dir, Arc::clone(&counters)));
    if let Some(metrics) = metrics {
        metrics.start(Arc::clone(&reporter))?;
    }
    let control = Control::new(control, Arc::clone(&reporter), CLIENT_WITHIN);
    let (takeover, first) = Takeover::begin(had_worker);
    let mut keeper = Keeper {
        device,
        counters,
        reporter,
        run_dir,
        signals,
        control,
        launcher,
        takeover,
        worker: None,
        announced: false,
        stops: 0,
        watchdog: Watchdog::from_environment(),
    };
    let outcome = keeper.run(first);
    if let Ok(Outcome::CacheDead) = outcome {
        // The next keeper is to bind another one.
        systemd::forget();
    }
    keeper.tidy_up();
    outcome
}

impl Keeper {
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
            Action::Announce => log_failure(self.announce()),
            Action::Terminate => {
                systemd::tell_stopping("the worker is asked to end");
                self.signal_worker(Signal::TERM);
            }
            Action::Kill => self.signal_worker(Signal::KILL),
            Action::Finish(outcome) => {
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

    /// Waits for the next thing that the machine has to know.
    fn wait(&mut self) -> anyhow::Result<Event> {
        loop {
            if self.stops > 0 {
                self.stops -= 1;
                return Ok(Event::Stop);
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
            if ready.report {
                self.signals.report.take();
                log_failure(self.report());
            }
            if ready.stop {
                self.stops += self.signals.stop.take();
                continue;
            }
            // Readiness before death: a worker that did both in between has served.
            if ready.answer && self.worker.as_mut().is_some_and(Child::take_ready) {
                return Ok(Event::Ready);
            }
            if ready.death {
                if let Some(event) = self.bury()? {
                    return Ok(event);
                }
            }
        }
    }

    fn poll(&self, timeout: Option<Duration>) -> anyhow::Result<Ready> {
        let timeout = timeout.map(Timespec::try_from).transpose()?;
        let mut fds = vec![
            PollFd::new(&self.signals.stop, PollFlags::IN),
            PollFd::new(&self.signals.report, PollFlags::IN),
        ];
        let control = fds.len();
        fds.extend(self.control.poll_fds());
        let worker = fds.len();
        if let Some(worker) = &self.worker {
            fds.push(PollFd::new(worker.pidfd(), PollFlags::IN));
            if let Some(channel) = worker.channel_if_awaited() {
                fds.push(PollFd::new(channel, PollFlags::IN));
            }
        }
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let is_ready = |index: usize| ready.get(index).is_some_and(|it| *it);
        Ok(Ready {
            stop: is_ready(0),
            report: is_ready(1),
            death: is_ready(worker),
            answer: is_ready(worker + 1),
            control: ready.get(control..worker).unwrap_or_default().to_vec(),
        })
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

    /// Leaves the last counters behind and takes the pids away.
    fn tidy_up(&self) {
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

/// What `poll` found.
struct Ready {
    stop: bool,
    report: bool,
    death: bool,
    answer: bool,
    /// Of what the control socket waits for.
    control: Vec<bool>,
}

fn is_cache_dead(status: ExitStatus) -> bool {
    status.code() == Some(i32::from(EXIT_CACHE_DEAD))
}
