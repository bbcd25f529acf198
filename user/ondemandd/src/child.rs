// SPDX-License-Identifier: MIT OR Apache-2.0

//! Starting a worker process, and holding on to one; the keeper may have been another program when it was started.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use rustix::process::WaitOptions;
use serde::Deserialize;
use serde::Serialize;
use tracing::warn;

use crate::config::settings::Settings;
use crate::config::source::SourceConfig;
use crate::config::source::Verify;
use crate::handover::Begin;
use crate::handover::Channel;
use crate::handover::HandoverError;
use crate::handover::Word;
use crate::logging::LogFormat;
use crate::sandbox::user::Identity;
use crate::sandbox::SandboxMode;
use crate::source::names::SourceList;
use crate::systemd;

/// This very program, whatever has become of its file.
const SELF: &str = "/proc/self/exe";

/// What a worker has to know of the module that is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Module {
    /// It keeps versions apart by tokens.
    pub(crate) tokens: bool,
    /// It sends an OPEN that failed again and again, as the C module does.
    pub(crate) insists: bool,
}

/// Knows how to start a worker.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Launcher {
    /// Where this program was. If a new version takes its place, the next worker is a new one.
    program: Option<PathBuf>,
    /// The last worker was never ready, so the next one is started from the other file: a new
    /// version may be broken, or may not understand the handover of this one.
    use_self: bool,
    /// What is said about the log, to the keeper's own next program as well.
    log_args: Vec<String>,
    /// What follows then.
    args: Vec<Argument>,
}

/// A word of a command line. Nearly always it is text, and can be read where a state is handed over; a path may be
/// none.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
enum Argument {
    Text(String),
    Other(OsString),
}

impl From<OsString> for Argument {
    fn from(word: OsString) -> Self {
        word.into_string()
            .map_or_else(Argument::Other, Argument::Text)
    }
}

impl AsRef<OsStr> for Argument {
    fn as_ref(&self) -> &OsStr {
        match self {
            Argument::Text(word) => word.as_ref(),
            Argument::Other(word) => word,
        }
    }
}

impl Launcher {
    pub(crate) fn new(settings: &Settings, log: &str) -> anyhow::Result<Self> {
        // Find out now, not in a worker: a wrong source would look like a crash.
        let sources = settings.sources.prepared()?;
        // What is as it always was is told as it always was, so that an older version understands it.
        let (word, value) = match (&sources.default, sources.named.as_slice()) {
            (Some(SourceConfig::Directory(directory)), [])
                if directory.verify == Verify::default() && directory.identity.is_none() =>
            {
                ("--source", directory.path.clone().into_os_string())
            }
            _ => ("--sources", serde_json::to_string(&sources)?.into()),
        };
        let identity = identity_of(settings, &sources)?;
        let mut log_args: Vec<String> = vec!["--log".into(), log.into()];
        if settings.log_format == LogFormat::Json {
            log_args.extend(["--log-format".into(), "json".into()]);
        }
        let mut args: Vec<OsString> = vec!["worker".into(), word.into(), value];
        args.extend(["--threads".into(), settings.threads.to_string().into()]);
        if let Some(identity) = identity {
            args.extend(["--as".into(), identity.to_string().into()]);
        }
        if settings.sandbox == SandboxMode::Required {
            args.extend(["--sandbox".into(), "required".into()]);
        }
        Ok(Launcher {
            program: std::env::current_exe().ok(),
            use_self: false,
            log_args,
            args: args.into_iter().map(Argument::from).collect(),
        })
    }

    /// Workers are told where the cache's record is, and what the kernel's module does.
    pub(crate) fn set_record(&mut self, record: &Path, module: Module) {
        let record = Argument::from(record.as_os_str().to_owned());
        self.args
            .extend([Argument::Text("--record".to_owned()), record]);
        let Module { tokens, insists } = module;
        for (word, is_said) in [("--tokens", tokens), ("--insists", insists)] {
            if is_said {
                self.args.push(Argument::Text(word.to_owned()));
            }
        }
    }

    /// Whether the module is the C module, as far as that is said to workers.
    pub(crate) fn insists(&self) -> bool {
        self.args.contains(&Argument::Text("--insists".to_owned()))
    }

    /// Where workers have blobs from.
    pub(crate) fn sources(&self) -> anyhow::Result<SourceList> {
        let words = self.args.iter().zip(self.args.iter().skip(1));
        for (word, value) in words {
            match (word, value) {
                (Argument::Text(word), Argument::Text(json)) if word == "--sources" => {
                    return serde_json::from_str(json).context("the sources are malformed");
                }
                (Argument::Text(word), path) if word == "--source" => {
                    return Ok(SourceList::directory(path.as_ref().as_ref()));
                }
                _ => {}
            }
        }
        anyhow::bail!("nobody knows the sources")
    }

    /// Learns whether the worker that has just ended had ever been ready.
    pub(crate) fn note_end(&mut self, was_ready: bool) {
        self.use_self = !was_ready && !self.use_self;
    }

    /// What is said about the log.
    pub(crate) fn log_args(&self) -> &[String] {
        &self.log_args
    }

    /// The program that an upgrade takes if none is named.
    pub(crate) fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }

    /// From now on workers are of this program.
    pub(crate) fn set_program(&mut self, program: PathBuf) {
        self.program = Some(program);
        self.use_self = false;
    }

    /// Starts a worker and hands it the device. `served` is given back by
    /// [`Child::served_before`].
    pub(crate) fn start(
        &self,
        device: BorrowedFd<'_>,
        counters: BorrowedFd<'_>,
        restore: bool,
        served: u64,
    ) -> anyhow::Result<Child> {
        let program = match &self.program {
            Some(path) if !self.use_self && path.exists() => path,
            _ => Path::new(SELF),
        };
        let begin = if restore {
            Begin::Restore
        } else {
            Begin::First
        };
        self.launch(program, device, counters, begin, served)
    }

    /// Starts a worker that is told later to begin, and hands it the device.
    pub(crate) fn start_successor(
        &self,
        program: &Path,
        device: BorrowedFd<'_>,
        counters: BorrowedFd<'_>,
    ) -> anyhow::Result<Child> {
        self.launch(program, device, counters, Begin::OnGo, 0)
    }

    fn launch(
        &self,
        program: &Path,
        device: BorrowedFd<'_>,
        counters: BorrowedFd<'_>,
        begin: Begin,
        served: u64,
    ) -> anyhow::Result<Child> {
        let (ours, theirs) = Channel::pair()?;
        // The packet waits in the socket until the worker reads it.
        ours.send_device(device, counters, begin)?;
        let mut command = Command::new(program);
        for variable in systemd::VARIABLES {
            command.env_remove(variable);
        }
        let mut process = command
            .arg0("ondemandd")
            .args(&self.log_args)
            .args(&self.args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // A Ctrl-C on the terminal is for the keeper, which then ends the worker.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        match Child::new(Pid::from_child(&process), ours, served) {
            Ok(child) => Ok(child),
            Err(error) => {
                // Cannot be watched, so must not run.
                let ended = process.kill().and_then(|()| process.wait());
                ended.context("cannot end a worker that cannot be watched")?;
                Err(error)
            }
        }
    }
}

/// Who the worker becomes, if it is to give up anything. Looks whether that user can read the directories.
fn identity_of(settings: &Settings, sources: &SourceList) -> anyhow::Result<Option<Identity>> {
    if settings.sandbox == SandboxMode::Off {
        return Ok(None);
    }
    let identity = Identity::find(settings.user.as_deref())?;
    for source in sources.iter() {
        if let SourceConfig::Directory(directory) = source {
            identity.check_source(&directory.path)?;
        }
    }
    Ok(Some(identity))
}

/// A worker that runs.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    /// Readable when the process, with all of its threads, has ended and its files are closed.
    pidfd: OwnedFd,
    /// Kept open as long as the worker lives: its end tells the worker that the keeper is gone.
    channel: Channel,
    /// The worker may say something; not once it has said what cannot be understood, or has ended.
    is_heard: bool,
    was_ready: bool,
    served_before: u64,
}

impl Child {
    fn new(pid: Pid, channel: Channel, served: u64) -> anyhow::Result<Self> {
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .context("cannot watch the worker")?;
        Ok(Child {
            pid,
            pidfd,
            channel,
            is_heard: true,
            was_ready: false,
            served_before: served,
        })
    }

    /// A worker that serves, and that an earlier program of this process has started: still its child, so the
    /// pid can be of nobody else.
    pub(crate) fn resume(pid: u32, channel: Channel, served: u64) -> anyhow::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let child = Self::new(pid.context("the worker's pid is none")?, channel, served)?;
        Ok(Child {
            was_ready: true,
            ..child
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// How many messages all workers had answered before this one.
    pub(crate) fn served_before(&self) -> u64 {
        self.served_before
    }

    /// Whether the worker has said that it serves.
    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready
    }

    /// The socket, as long as the worker may say something on it.
    pub(crate) fn channel_if_heard(&self) -> Option<&Channel> {
        self.is_heard.then_some(&self.channel)
    }

    /// Reads what the worker says on the socket, if it has said anything. Never blocks.
    pub(crate) fn take_word(&mut self) -> Option<Word> {
        if !self.is_heard {
            return None;
        }
        match self.channel.receive_word(Duration::ZERO) {
            Ok(word) => {
                self.was_ready |= word == Word::Ready;
                Some(word)
            }
            Err(HandoverError::TimedOut(_)) => None,
            // It is about to end, and the pidfd will tell; or it is of another version, says
            // nothing that can be understood, and its time will run out.
            Err(error) => {
                self.is_heard = false;
                if !self.was_ready {
                    warn!(pid = self.pid(), %error, "no word from the worker");
                }
                None
            }
        }
    }

    /// Tells a successor to begin; from now on it is the worker, after `served` messages. One that has just
    /// ended is no error.
    pub(crate) fn go(&mut self, served: u64) {
        self.served_before = served;
        if let Err(error) = self.channel.send_go() {
            warn!(pid = self.pid(), %error, "cannot tell the worker to begin");
        }
    }

    /// Signals the worker; one that has just ended is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            warn!(pid = self.pid(), ?signal, %error, "cannot signal the worker");
        }
    }

    /// The exit status, once there is one. Never blocks. Not to be called again then.
    pub(crate) fn try_wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let ended = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG)
        });
        let ended = ended.context("cannot wait for the worker")?;
        Ok(ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw())))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::cli::Command as CliCommand;

    /// The words that a worker gets from a keeper with these flags.
    fn words(flags: &[&str]) -> Vec<String> {
        let line = ["ondemandd", "serve", "--cache=/c", "--source=/"];
        let cli = Cli::try_parse_from(line.iter().chain(flags)).unwrap();
        let CliCommand::Serve(args) = &cli.command else {
            panic!("{cli:?}");
        };
        let settings = Settings::new(args, cli.log_format).unwrap();
        let launcher = Launcher::new(&settings, "debug").unwrap();
        assert_eq!(
            launcher.sources().unwrap(),
            settings.sources.prepared().unwrap()
        );
        let words = launcher.args.into_iter().map(|word| match word {
            Argument::Text(word) => word,
            Argument::Other(word) => panic!("{word:?}"),
        });
        launcher.log_args.into_iter().chain(words).collect()
    }

    #[test]
    fn words_are_handed_over_as_text_if_they_are_any() {
        let odd = OsString::from_vec(b"/\xff".to_vec());
        let words = [OsString::from("/é"), odd].map(Argument::from);
        let text = serde_json::to_string(&words).unwrap();
        assert!(text.starts_with(r#"["/é",{"#), "{text}");
        assert_eq!(serde_json::from_str::<[Argument; 2]>(&text).unwrap(), words);
    }

    #[test]
    fn a_worker_understands_its_keeper() {
        let plain = words(&["--threads=3", "--sandbox=off"]);
        let known_for_long = "--log debug worker --source / --threads 3";
        assert_eq!(plain.join(" "), known_for_long);

        let all = ["--log-format=json", "--user=0:0", "--sandbox=required"];
        let line = ["ondemandd".to_owned()].into_iter().chain(words(&all));
        let cli = Cli::try_parse_from(line).unwrap();
        assert_eq!(cli.log_format, Some(LogFormat::Json));
        let CliCommand::Worker(worker) = cli.command else {
            panic!("{cli:?}");
        };
        assert_eq!(worker.identity, Some("0:0".parse().unwrap()));
        assert_eq!(worker.sandbox, SandboxMode::Required);
    }

    #[test]
    fn without_sandbox_nobody_is_looked_up() {
        let words = words(&["--user=nobody-of-that-name", "--sandbox=off"]);
        assert!(!words.contains(&"--as".to_owned()), "{words:?}");
    }
}
