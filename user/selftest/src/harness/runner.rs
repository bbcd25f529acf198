// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs tests one after another, each in a session of its own, and prints KTAP.
//!
//! C header: none; the format is `Documentation/dev-tools/ktap.rst`.

use std::fmt::Write;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::os::unix::process::ExitStatusExt;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Device;
use ondemand_deadline::Deadline;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::WaitOptions;

use super::check::Skip;
use super::context::Settings;
use super::kmsg::KernelLog;
use super::known;
use super::known::Known;
use super::procfs;
use super::raw;
use super::stops;
use super::wait::eventually;
use super::wait::readable;
use super::Context;
use super::Test;

/// The exit status of a test, or of the program, that could not run here.
pub const EXIT_SKIP: u8 = 4;

/// How long the processes of a test that was killed may take to go, and the cache to be freed, on the
/// reference machine.
const CLEANUP: Duration = Duration::from_secs(30);

/// How the tests are run.
#[derive(Clone, Debug)]
pub struct Runner {
    /// Where things are.
    pub settings: Settings,
    /// The backend is the C module: its defects are known.
    pub expect_c: bool,
    /// Print the output of tests that pass, too.
    pub verbose: bool,
}

#[derive(Debug)]
enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
    known: u32,
    surprises: Vec<&'static str>,
}

/// Runs one test in this process, which becomes the leader of a session. `expect_c`: a test of a command that the C
/// module does not have is skipped.
#[must_use]
pub fn run_one(test: &Test, settings: Settings, expect_c: bool) -> ExitCode {
    let dir = settings.cache_dir.join(format!(
        "{}.{}",
        test.name,
        rustix::process::getpid().as_raw_nonzero()
    ));
    let prepared = rustix::process::setsid()
        .map(drop)
        .and_then(|()| raw::private_mounts())
        .context("a session and mounts of the test's own")
        .and_then(|()| Context::new(settings, dir));
    let context = match prepared {
        Ok(context) => context,
        Err(error) => {
            println!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    // What the test has open is closed by the time its result is here.
    match panic::catch_unwind(AssertUnwindSafe(|| (test.run)(&context))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            println!("{error:#}");
            if error.downcast_ref::<Skip>().is_some() || expect_c && known::lacks_command(&error) {
                return ExitCode::from(EXIT_SKIP);
            }
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}

impl Runner {
    /// Runs tests and prints their results; returns the program's exit status.
    ///
    /// # Errors
    ///
    /// No process could be started, or the kernel's log cannot be read.
    pub fn run(&self, tests: &[&Test]) -> Result<ExitCode> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        println!("KTAP version 1\n1..{}", tests.len());
        let start = Instant::now();
        let mut tally = Tally::default();
        for (number, test) in (1..).zip(tests) {
            let known = known::find(test.name).filter(|_| self.expect_c);
            let (verdict, diagnostics) = match known {
                Some(known) if known.left_out => {
                    let reason = format!("not run against the C module ({})", known.defect);
                    (Verdict::Skipped(reason), Vec::new())
                }
                _ => self.run_test(test)?,
            };
            report(number, test, known, &verdict, &diagnostics, &mut tally);
            if let Err(error) = self.settle() {
                println!("Bail out! after {}: {error:#}", test.name);
                return Ok(ExitCode::FAILURE);
            }
        }
        print_summary(&tally, start.elapsed());
        Ok(if tally.failed > 0 {
            ExitCode::FAILURE
        } else if tally.passed + tally.known == 0 {
            ExitCode::from(EXIT_SKIP)
        } else {
            ExitCode::SUCCESS
        })
    }

    fn arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments = vec![
            "--cache-dir".into(),
            self.settings.cache_dir.clone().into(),
            "--device".into(),
            self.settings.device.clone().into(),
            "--work-dir".into(),
            self.settings.work_dir.clone().into(),
        ];
        for command in &self.settings.setup {
            arguments.extend(["--setup".into(), command.into()]);
        }
        if let Some(module) = &self.settings.other_module {
            arguments.push("--other-module".into());
            arguments.push(module.clone().into());
        }
        arguments
    }

    fn run_test(&self, test: &Test) -> Result<(Verdict, Vec<String>)> {
        let log = KernelLog::end().context("/dev/kmsg")?;
        let mut output = File::from(rustix::fs::memfd_create(
            test.name,
            rustix::fs::MemfdFlags::CLOEXEC,
        )?);
        // What this process has learnt of the machine since it began, the child need not find out.
        let percent = ondemand_deadline::percent_now();
        let start = Instant::now();
        let mut child = Command::new("/proc/self/exe")
            .env(ondemand_deadline::VARIABLE, percent.to_string())
            .args(["--one", test.name])
            .args(self.expect_c.then_some("--expect-c"))
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()
            .context("cannot start the test")?;
        let session = i32::try_from(child.id())?;
        let mut diagnostics = Vec::new();
        let mut deadline = Deadline::after(test.deadline);
        let ended = wait_for(&child, &mut deadline)?;
        if !ended {
            diagnostics.extend(procfs::suspicious_stacks(session));
            stops::release_all();
        }
        let gone = end_session(&mut child, session);

        output.rewind()?;
        let mut text = Vec::new();
        output.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        diagnostics.splice(0..0, text.lines().map(str::to_owned));

        let exit = child.try_wait()?;
        let verdict = if !ended {
            Verdict::Failed(format!("not finished within {deadline}"))
        } else {
            match exit.map(|exit| (exit.code(), exit.signal())) {
                Some((Some(0), _)) => Verdict::Passed,
                Some((Some(code), _)) if code == i32::from(EXIT_SKIP) => {
                    let reason = text.lines().next().unwrap_or("no reason given");
                    Verdict::Skipped(reason.to_owned())
                }
                Some((None, Some(signal))) => Verdict::Failed(format!("killed by signal {signal}")),
                _ => Verdict::Failed("failed".to_owned()),
            }
        };
        let verdict = match (verdict, gone) {
            (Verdict::Passed, Err(error)) => Verdict::Failed(format!("{error:#}")),
            (verdict, _) => verdict,
        };

        let lines = log.lines();
        let reported = lines.iter().any(|line| line.report);
        let verdict = match verdict {
            Verdict::Passed | Verdict::Skipped(_) if reported => {
                Verdict::Failed("the kernel reported an error".to_owned())
            }
            verdict => verdict,
        };
        if self.verbose || matches!(verdict, Verdict::Failed(_)) {
            diagnostics.extend(lines.iter().map(|line| format!("kernel: {}", line.text)));
        }
        let took = start.elapsed().as_secs_f32();
        diagnostics.push(format!("{took:.1} s, deadlines at {percent} %"));
        if !self.verbose && !matches!(verdict, Verdict::Failed(_)) {
            diagnostics.clear();
        }
        Ok((verdict, diagnostics))
    }

    /// Waits until the cache of the last test is gone, so that the next one has a fair start, and
    /// removes what it left on disk.
    fn settle(&self) -> Result<()> {
        let mut last = None;
        let freed = eventually(
            "the device can be opened again",
            CLEANUP,
            || match Device::open(&self.settings.device) {
                Ok(_) => Ok(true),
                Err(error) => {
                    last = Some(error);
                    Ok(false)
                }
            },
        );
        if let (Err(error), Some(last)) = (freed, last) {
            let mut stacks = String::new();
            for line in procfs::suspicious_stacks(-1) {
                let _ = write!(stacks, "\n# {line}");
            }
            return Err(error.context(format!("{last}{stacks}")));
        }
        for entry in fs::read_dir(&self.settings.cache_dir)?.flatten() {
            let path: PathBuf = entry.path();
            // What the kernel still holds stays until the next time.
            let _ = fs::remove_dir_all(path);
        }
        Ok(())
    }
}

fn wait_for(child: &Child, deadline: &mut Deadline) -> Result<bool> {
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    Ok(readable([&pidfd], deadline)?[0])
}

/// Ends what a test has left running; an error names who does not die.
fn end_session(child: &mut Child, session: i32) -> Result<()> {
    let mut deadline = Deadline::after(CLEANUP);
    procfs::kill_session(session);
    loop {
        let passed = deadline.passed();
        // Reaped by id, so that nobody takes the status of another child.
        let _ = child.try_wait();
        for process in procfs::processes() {
            if process.session == session && process.state == 'Z' && process.pid != session {
                let _ = rustix::process::waitpid(Pid::from_raw(process.pid), WaitOptions::NOHANG);
            }
        }
        let left = procfs::of_session(session);
        if left.is_empty() {
            return Ok(());
        }
        let stacks: Vec<String> = left.iter().flat_map(procfs::stacks).collect();
        ensure!(
            !passed,
            "processes cannot be killed within {deadline}:\n{}",
            stacks.join("\n")
        );
        procfs::kill_session(session);
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn report(
    number: u32,
    test: &Test,
    known: Option<Known>,
    verdict: &Verdict,
    diagnostics: &[String],
    tally: &mut Tally,
) {
    let name = test.name;
    for line in diagnostics.iter().flat_map(|line| line.lines()) {
        println!("# {line}");
    }
    match (verdict, known) {
        (Verdict::Passed, known) => {
            if known.is_some() {
                tally.surprises.push(name);
            }
            tally.passed += 1;
            println!("ok {number} - {name}");
        }
        (Verdict::Skipped(reason), _) => {
            tally.skipped += 1;
            println!("ok {number} - {name} # SKIP {reason}");
        }
        (Verdict::Failed(reason), Some(known)) => {
            tally.known += 1;
            println!("# {reason}");
            println!("ok {number} - {name} # known C defect {}", known.defect);
        }
        (Verdict::Failed(reason), None) => {
            tally.failed += 1;
            println!("# {}: {reason}", test.about);
            println!("not ok {number} - {name}");
        }
    }
}

fn print_summary(tally: &Tally, took: Duration) {
    if !tally.surprises.is_empty() {
        println!(
            "# known as defects of the C module, and passed: {}",
            tally.surprises.join(" ")
        );
    }
    println!(
        "# {} passed, {} failed, {} skipped, {} known C defects, {:.0} s",
        tally.passed,
        tally.failed,
        tally.skipped,
        tally.known,
        took.as_secs_f32()
    );
}
