// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keeper: opens the device, binds the cache, and sees to it that a worker serves it.
//!
//! It decides nothing by itself: it turns what happens into events of the
//! [`Takeover`] machine, and carries the machine's actions out. It never reads from the device. A
//! thread of its own makes room in the cache; see `cull`.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Fill;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::process::Signal;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::child::Child;
use crate::child::Launcher;
use crate::cli::FillWay;
use crate::config::settings::Settings;
use crate::counters::count;
use crate::counters::Counters;
use crate::cull;
use crate::metrics::server::MetricsServer;
use crate::report::Reporter;
use crate::rundir;
use crate::rundir::RunDir;
use crate::signals::Signals;
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
    launcher: Launcher,
    takeover: Takeover,
    /// The worker that runs, if one does.
    worker: Option<Child>,
    /// The first worker has served, and `keeper.pid` is there.
    announced: bool,
    /// Stop signals that have come and were not yet told to the machine.
    stops: usize,
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
    let launcher = Launcher::new(settings, log)?;
    let counters = Arc::new(Counters::create()?);
    let metrics = settings.metrics.as_ref().map(MetricsServer::bind);
    let metrics = metrics.transpose()?;
    let (device, dir) = if settings.take_over {
        take_over(settings)?
    } else {
        bind(settings)?
    };
    cull::start(&device, &dir, settings.limits, &counters)?;
    let reporter = Arc::new(Reporter::new(dir, Arc::clone(&counters)));
    if let Some(metrics) = metrics {
        metrics.start(Arc::clone(&reporter))?;
    }
    let (takeover, first) = Takeover::begin(settings.take_over);
    let mut keeper = Keeper {
        device,
        counters,
        reporter,
        run_dir,
        signals,
        launcher,
        takeover,
        worker: None,
        announced: false,
        stops: 0,
    };
    let outcome = keeper.run(first);
    keeper.tidy_up();
    outcome
}

/// Takes a device that is bound off standard input; also returns where the cache is said to be.
///
/// The number is always 0: to own a descriptor of any other number is something that no check can
/// make safe.
fn take_over(settings: &Settings) -> anyhow::Result<(Device, PathBuf)> {
    let dir = fs::canonicalize(&settings.cache)
        .with_context(|| format!("cannot find {}", settings.cache.display()))?;
    let stdin = std::io::stdin();
    let device = stdin.as_fd().try_clone_to_owned().context("no device")?;
    let device = Device::from_owned_fd(device).context("standard input is not the device")?;
    // To close the device later is to close all of this process's copies.
    let null = fs::File::open("/dev/null").context("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot replace standard input")?;
    info!(cache = %dir.display(), sources = %settings.sources, "device taken over");
    Ok((device, dir))
}

/// Opens the device and starts the cache; also returns where the cache is.
fn bind(settings: &Settings) -> anyhow::Result<(Device, PathBuf)> {
    fs::create_dir_all(&settings.cache).with_context(|| {
        format!(
            "cannot make the cache directory {}",
            settings.cache.display()
        )
    })?;
    // The kernel looks the path up itself, in this process: make it independent of where that is.
    let dir = fs::canonicalize(&settings.cache)
        .with_context(|| format!("cannot find {}", settings.cache.display()))?;
    let device = Device::open(&settings.device)?;
    device.send(&Command::Dir(dir.clone()))?;
    if let Some(tag) = &settings.tag {
        device.send(&Command::Tag(tag.into()))?;
    }
    for limit in settings.limits.commands() {
        device.send(&limit)?;
    }
    if settings.timeout != 0 {
        device.send(&Command::Timeout(settings.timeout)).context(
            "--timeout: the loaded module has no deadlines (the kernel's own cachefiles?)",
        )?;
    }
    if settings.fetch != 0 {
        device.send(&Command::Fetch(settings.fetch)).context(
            "--fetch: the loaded module knows no windows (the kernel's own cachefiles?)",
        )?;
    }
    if settings.batch.get() != 1 {
        device.send(&Command::Batch(settings.batch.get())).context(
            "--batch: the loaded module knows no batches (the kernel's own cachefiles?)",
        )?;
    }
    if settings.fill == FillWay::Buffered {
        device
            .send(&Command::Fill(Fill::Buffered))
            .context("--fill buffered: the loaded module cannot (the kernel's own cachefiles?)")?;
    }
    device
        .send(&Command::BindOnDemand)
        .with_context(|| format!("cannot start a cache in {}", dir.display()))?;
    info!(cache = %dir.display(), sources = %settings.sources, "cache bound");
    Ok((device, dir))
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
            Action::Terminate => self.signal_worker(Signal::TERM),
            Action::Kill => self.signal_worker(Signal::KILL),
            Action::Finish(outcome) => return Ok(Step::End(outcome)),
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

    /// Says in the run directory who serves: the worker first, so that whoever finds the keeper
    /// finds the worker too.
    fn announce(&mut self) -> anyhow::Result<()> {
        let Some(worker) = &self.worker else {
            return Ok(());
        };
        info!(pid = worker.pid(), "worker is ready");
        self.run_dir
            .write(rundir::WORKER_PID, &format!("{}\n", worker.pid()))?;
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
            let ready = self.poll(deadline.map(|deadline| deadline - now))?;
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
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            stop: is_ready(0),
            report: is_ready(1),
            death: is_ready(2),
            answer: is_ready(3),
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
}

fn is_cache_dead(status: ExitStatus) -> bool {
    status.code() == Some(i32::from(EXIT_CACHE_DEAD))
}
