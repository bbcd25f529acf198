// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keeper becomes another program, by `exec` in place: the process with its pid, its children and all
//! that the kernel and systemd know of it stays.
//!
//! What the next program needs is a packet that waits in a socket on its standard input: descriptors, and
//! the rest as JSON. So no number of a descriptor has to be believed, and an `exec` that fails has changed
//! nothing. Signals that come meanwhile wait.
//!
//! Whether the next program understands the packet is asked before: its worker, which serves by then, has said
//! which version of it that is, see [`Word::Prepared`](crate::handover::Word::Prepared).

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context;
use cachefiles_proto::passing;
use cachefiles_proto::Device;
use serde::Deserialize;
use serde::Serialize;
use tracing::error;
use tracing::info;

use super::log_failure;
use super::upgrade::Upgrade;
use super::Keeper;
use super::Parts;
use crate::child::Child;
use crate::child::Launcher;
use crate::control::server::ControlListener;
use crate::control::Answer;
use crate::counters::Counters;
use crate::handover::Channel;
use crate::handover::RESUMES;
use crate::limits::Limits;
use crate::metrics::address::MetricsAddress;
use crate::metrics::server::MetricsServer;

use crate::record::begin::Claim;
use crate::rundir::RunDir;
use crate::signals;
use crate::signals::Signals;
use crate::systemd;
use crate::takeover::Outcome;
use crate::takeover::Takeover;

/// No more bytes than fit into a socket's buffer by default.
const LONGEST_STATE: usize = 128 << 10;

/// What stays as it is, whatever program the keeper is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Fixed {
    /// Directory of the cache.
    pub(super) cache: PathBuf,
    pub(super) limits: Limits,
    /// Where metrics are served, if they are.
    pub(super) metrics: Option<String>,
}

/// A keeper whose worker serves. Beside it go descriptors: device, counters, the run directory's lock, the
/// control socket, the worker's socket, if it says so the socket of the metrics, and, if there is an answer, the
/// connection to the client that gets it.
#[derive(Debug, Deserialize, Serialize)]
struct State {
    fixed: Fixed,
    run_dir: PathBuf,
    launcher: Launcher,
    worker_pid: u32,
    served_before: u64,
    uptime_seconds: u64,
    /// Metrics are served.
    has_metrics: bool,
    answer: Option<Answer>,
}

impl Keeper {
    /// Becomes the program of an upgrade, whose worker serves. Returns only if it cannot; then
    /// all is as it was.
    pub(super) fn become_program(
        &mut self,
        upgrade: &Upgrade,
        answer: &Answer,
    ) -> anyhow::Result<Infallible> {
        let resumes = upgrade
            .resumes
            .context("the new program has not said what it knows")?;
        ensure!(
            resumes == RESUMES,
            "the new program goes on from version {resumes} of a keeper's state, and this is \
             version {RESUMES}: restart the service"
        );
        ensure!(
            self.discarded.is_empty(),
            "a worker of an earlier upgrade was killed and has not ended yet"
        );
        let state = self.pack(upgrade, answer)?;
        self.signals.block()?;
        let result = self.execute(upgrade, state);
        self.signals.unblock()?;
        result
    }

    /// The end of a socket where the state waits.
    fn pack(&self, upgrade: &Upgrade, answer: &Answer) -> anyhow::Result<OwnedFd> {
        let worker = self.worker.as_ref().context("there is no worker")?;
        let client = self.control.connection(upgrade.client);
        let state = State {
            fixed: self.fixed.clone(),
            run_dir: self.run_dir.path(""),
            launcher: self.launcher.clone(),
            worker_pid: worker.pid(),
            served_before: worker.served_before(),
            uptime_seconds: self.reporter.report().uptime_seconds,
            has_metrics: self.metrics.is_some(),
            answer: client.is_some().then(|| answer.clone()),
        };
        let state = serde_json::to_vec(&state).context("cannot write the keeper's state")?;
        ensure!(
            state.len() <= LONGEST_STATE,
            "the keeper's state is too long"
        );
        let mut fds = vec![
            self.device.as_fd(),
            self.counters.as_fd(),
            self.run_dir.lock(),
            self.control.listener().as_fd(),
            worker.channel().as_fd(),
        ];
        fds.extend(self.metrics.as_ref().map(AsFd::as_fd));
        fds.extend(client);
        let (ours, theirs) = passing::pair().context("cannot make a socket pair")?;
        passing::send(&ours, &state, &fds).context("cannot send the keeper's state")?;
        Ok(theirs)
    }

    /// Executes the program, with `state` on its standard input. Signals are blocked.
    fn execute(&mut self, upgrade: &Upgrade, state: OwnedFd) -> anyhow::Result<Infallible> {
        // What has come before they were would be lost.
        if self.signals.report.take() > 0 {
            log_failure(self.report());
        }
        self.stops += self.signals.stop.take();
        ensure!(self.stops == 0, "the keeper was asked to end");
        let stdin = std::io::stdin();
        let before = stdin
            .as_fd()
            .try_clone_to_owned()
            .context("standard input")?;
        rustix::stdio::dup2_stdin(&state).context("cannot replace standard input")?;
        info!(program = %upgrade.program.display(), "the keeper becomes the new program");
        let mut command = Command::new(&upgrade.program);
        command
            .arg0("ondemandd")
            .args(self.launcher.log_args())
            .arg("resume");
        // They are about descriptors that are closed now.
        for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        let error = command.exec();
        // First: without it the next client that has gone would end the keeper.
        signals::ignore_broken_pipes().context("SIGPIPE")?;
        rustix::stdio::dup2_stdin(&before).context("cannot restore standard input")?;
        let program = upgrade.program.display();
        Err(error).with_context(|| format!("cannot execute {program}"))
    }
}

/// Goes on as the keeper that this process was under another program, until a signal or the cache's death.
///
/// # Errors
///
/// Standard input is not what an earlier program of this process has left there.
pub fn resume() -> anyhow::Result<Outcome> {
    // Signals are blocked yet, and wait until all is as it was.
    let signals = Signals::install()?;
    let (state, fds) = receive().context("`resume` is for a keeper that is upgraded")?;
    let mut fds = fds.into_iter();
    let mut next = |what| {
        fds.next()
            .with_context(|| format!("no descriptor of {what}"))
    };
    let device = Device::from_owned_fd(next("the device")?)?;
    let counters = Counters::from_owned_fd(next("the counters")?)?;
    let run_dir = RunDir::resume(&state.run_dir, next("the run directory")?);
    let control = ControlListener::from(next("the control socket")?);
    let channel = Channel::from(next("the worker's socket")?);
    let metrics = match state.has_metrics {
        true => Some(next("the metrics")?),
        false => None,
    };
    let client = fds.next();
    let worker = Child::resume(state.worker_pid, channel, state.served_before)?;
    // The name of the program's file, which may be any.
    let _ = rustix::thread::set_name(c"ondemandd");
    // The program that this process was has just given it up.
    let claim = Claim::new(&state.fixed.cache)?;
    let parts = Parts {
        claim,
        device,
        metrics: metrics_of(&state.fixed, metrics),
        fixed: state.fixed,
        counters: Arc::new(counters),
        uptime: Duration::from_secs(state.uptime_seconds),
        run_dir,
        signals,
        control,
        launcher: state.launcher,
    };
    let (takeover, first) = Takeover::resume();
    let mut keeper = Keeper::assemble(parts, takeover)?;
    let pid = worker.pid();
    info!(worker = pid, "the keeper is upgraded");
    keeper.reporter.set_worker(Some(pid));
    keeper.worker = Some(worker);
    keeper.announced = true;
    if let (Some(client), Some(answer)) = (client, state.answer) {
        keeper.control.adopt(UnixStream::from(client), &answer);
    }
    systemd::tell_status(&format!("worker {pid} serves; upgraded"));
    keeper.serve(first)
}

/// Takes the state off standard input, which then reads `/dev/null`.
fn receive() -> anyhow::Result<(State, Vec<OwnedFd>)> {
    let stdin = std::io::stdin();
    let socket = stdin
        .as_fd()
        .try_clone_to_owned()
        .context("standard input")?;
    let null = File::open("/dev/null").context("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot replace standard input")?;
    let packet = passing::receive(&socket, LONGEST_STATE).context("standard input is no socket")?;
    ensure!(!packet.is_cut, "the keeper's state is of another version");
    let state = serde_json::from_slice(&packet.bytes);
    let state = state.context("the keeper's state is of another version")?;
    Ok((state, packet.fds))
}

/// Goes on serving metrics with the socket of the earlier program, or without it at the same place: a program that
/// could not is no reason to do without for good, and failing again is none to end.
fn metrics_of(fixed: &Fixed, socket: Option<OwnedFd>) -> Option<MetricsServer> {
    let address = fixed.metrics.as_ref()?;
    let parsed = address
        .parse()
        .map_err(|error: String| anyhow::anyhow!(error));
    let server = parsed.and_then(|address: MetricsAddress| match socket {
        Some(socket) => Ok(MetricsServer::resume(address, socket)),
        None => MetricsServer::bind(&address),
    });
    server
        .inspect_err(|error| error!(%address, error = format!("{error:#}"), "no metrics for now"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form of version 4. Whoever changes the one changes the other, and the number: a program that takes an
    /// earlier form for its own would end while it is the keeper.
    const FORM: &str = concat!(
        r#"{"fixed":{"cache":"/c","limits":{"brun":7,"bcull":5,"bstop":1,"frun":7,"fcull":5,"fstop":1},"#,
        r#""metrics":"127.0.0.1:9464"},"run_dir":"/r/","launcher":{"program":"/p","use_self":false,"#,
        r#""log_args":["--log","info"],"args":["worker","--source","/s","--record","/c/ondemandd.versions"]},"worker_pid":3,"#,
        r#""served_before":4,"uptime_seconds":5,"has_metrics":true,"#,
        r#""answer":{"answer":"upgraded","program":"/p","worker_pid":3,"kept":null}}"#,
    );

    #[test]
    fn another_form_has_another_number() {
        let state: State = serde_json::from_str(FORM).unwrap();
        assert_eq!(serde_json::to_string(&state).unwrap(), FORM);
        assert_eq!(RESUMES, 4);
    }
}
