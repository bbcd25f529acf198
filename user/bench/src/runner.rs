// SPDX-License-Identifier: MIT OR Apache-2.0

//! A session: each scenario, pair by pair, on one module and then on the other.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use clap::Args;

use crate::image::PLAIN;
use crate::machine::Machine;
use crate::mode::Fill;
use crate::mode::Mode;
use crate::module::Module;
use crate::order::alternate;
use crate::results::End;
use crate::results::Results;
use crate::results::Run;
use crate::scenario::Scenario;
use crate::scenarios;
use crate::subject::Subject;
use crate::work::Event;
use crate::work::Work;

/// How much longer than its deadline a run is listened to.
const GRACE: Duration = Duration::from_secs(30);

/// What a session is told.
#[derive(Args)]
pub(crate) struct Options {
    /// The kernel's own module.
    #[arg(long)]
    c_module: PathBuf,
    /// This module.
    #[arg(long)]
    our_module: PathBuf,
    /// Where `ondemand-bench images` has made the images.
    #[arg(long)]
    images: PathBuf,
    /// A directory on the file system of the caches (ext4).
    #[arg(long)]
    disk: PathBuf,
    /// A directory in memory.
    #[arg(long, default_value = "/run/ondemand-bench")]
    work_dir: PathBuf,
    /// Where results.json goes.
    #[arg(long)]
    results: PathBuf,
    /// The scenarios, s1 to s10; all if none is given.
    #[arg(long = "scenario")]
    scenarios: Vec<Scenario>,
    /// How often each is run on each module.
    #[arg(long)]
    pairs: Option<u32>,
    /// The modes of this module besides the classic one.
    #[arg(long = "mode")]
    modes: Vec<Mode>,
    /// What the daemon writes for a READ: `asked`, or aligned windows of so many bytes.
    #[arg(long, default_value_t)]
    fill: Fill,
    /// Three pairs and small sizes.
    #[arg(long)]
    quick: bool,
    /// A program that starts each run: its arguments are the run's name and the command. The module is
    /// loaded as long as it goes on.
    #[arg(long, value_name = "PROGRAM")]
    under: Option<PathBuf>,
    /// The commit that is measured.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// The name of the kernel's build directory.
    #[arg(long, default_value = "unknown")]
    kernel_build: String,
}

/// How a run ended, and whether it left something behind that never ends.
struct Ended {
    run: Run,
    stuck: bool,
}

struct Runner<'a> {
    options: &'a Options,
    modules: BTreeMap<Subject, Module>,
    program: PathBuf,
    begun: Instant,
    results: Results,
    /// Modes that the module has refused.
    refused: BTreeSet<Mode>,
}

/// Runs a session; its results are saved after each run.
///
/// # Errors
///
/// It cannot even begin.
pub(crate) fn session(options: &Options) -> Result<()> {
    let dir = &options.work_dir;
    fs::create_dir_all(dir)?;
    let images = dir.join("images");
    fs::create_dir_all(&images)?;
    for entry in fs::read_dir(&options.images)? {
        let entry = entry?;
        fs::copy(entry.path(), images.join(entry.file_name()))?;
    }
    // Programs and modules lie in memory too: dropped caches are those of the images.
    let program = dir.join("ondemand-bench");
    fs::copy(std::env::current_exe()?, &program)?;
    let modules = [
        (Subject::C, Module::copy(&options.c_module, dir)?),
        (Subject::Ours, Module::copy(&options.our_module, dir)?),
    ];
    let files = [&*options.c_module, &*options.our_module];
    let machine = Machine::here(&options.commit, &options.kernel_build, &files)?;
    let mut runner = Runner {
        options,
        modules: modules.into(),
        program,
        begun: Instant::now(),
        results: Results::new(options.quick, options.fill, machine),
        refused: BTreeSet::new(),
    };
    fs::create_dir_all(&options.results)?;
    for scenario in Scenario::ALL {
        if (options.scenarios.is_empty() || options.scenarios.contains(&scenario))
            && !runner.scenario(scenario)?
        {
            break;
        }
    }
    runner.save()
}

impl Runner<'_> {
    fn pairs(&self) -> u32 {
        let pairs = if self.options.quick { 3 } else { 5 };
        self.options.pairs.unwrap_or(pairs)
    }

    fn save(&self) -> Result<()> {
        self.results
            .save(&self.options.results.join("results.json"))
    }

    /// One scenario; false if the kernel is of no use afterwards.
    fn scenario(&mut self, scenario: Scenario) -> Result<bool> {
        if scenario.last() {
            // The one that may hang has to be the last one.
            let ours = (0..self.pairs()).map(|pair| (pair, Subject::Ours, Mode::classic()));
            let theirs = (0..self.pairs()).map(|pair| (pair, Subject::C, Mode::classic()));
            let runs: Vec<_> = ours.chain(theirs).collect();
            return self.all(scenario, runs);
        }
        for pair in 0..self.pairs() {
            let mut runs = vec![
                (pair, Subject::C, Mode::classic()),
                (pair, Subject::Ours, Mode::classic()),
            ];
            if scenario.has_modes() {
                let modes = self.options.modes.iter().filter(|mode| !mode.is_classic());
                runs.extend(modes.map(|mode| (pair, Subject::Ours, mode.clone())));
            }
            if scenario.has_limit() {
                runs.push((pair, Subject::Limit, Mode::classic()));
            }
            if !self.all(scenario, alternate(runs, pair))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs of a scenario, in turn; false if the kernel is of no use afterwards.
    fn all(&mut self, scenario: Scenario, runs: Vec<(u32, Subject, Mode)>) -> Result<bool> {
        for (pair, subject, mode) in runs {
            if self.refused.contains(&mode) {
                continue;
            }
            let loaded = match self.modules.get(&subject) {
                Some(module) => Some(module.load()?),
                None => None,
            };
            let Ended { run, stuck } = self.run(scenario, pair, subject, &mode)?;
            self.say(&run);
            if let End::NotSupported(_) = run.end {
                self.refused.insert(mode);
            }
            let hangs = matches!(run.end, End::Hangs(_));
            self.results.runs.push(run);
            let gone = match (stuck, loaded) {
                (true, _) => Err(anyhow::anyhow!("its readers do not end")),
                (false, Some(loaded)) => loaded.unload(),
                (false, None) => Ok(()),
            };
            if let Err(error) = gone {
                let remark = format!(
                    "after {scenario} the module of {} cannot be unloaded ({error:#}): nothing was run after that",
                    subject.name()
                );
                println!("{remark}");
                self.results.remarks.push(remark);
                self.save()?;
                return Ok(false);
            }
            self.save()?;
            if hangs && scenario.last() {
                break;
            }
        }
        Ok(true)
    }

    /// One run, in a process of its own.
    fn run(&self, scenario: Scenario, pair: u32, subject: Subject, mode: &Mode) -> Result<Ended> {
        let work = Work {
            scenario,
            subject,
            mode: mode.clone(),
            fill: self.options.fill,
            quick: self.options.quick,
            images: self.options.work_dir.join("images"),
            disk: self.options.disk.clone(),
            dir: self.options.work_dir.clone(),
            program: self.program.clone(),
            seed: PLAIN.blocks + u64::from(pair),
        };
        let mut run = Run {
            scenario,
            pair,
            subject,
            mode: mode.clone(),
            end: End::Done,
            figures: BTreeMap::new(),
            times: None,
            at: self.begun.elapsed().as_secs_f64(),
        };
        let deadline = scenario.deadline(self.options.quick);
        let mut command = match &self.options.under {
            Some(under) => {
                let mut command = Command::new(under);
                let name = format!("{scenario}-{}-{mode}-{}", subject.name(), pair + 1);
                command.arg(name).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        let mut child = command
            .arg("one")
            .arg(serde_json::to_string(&work)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a run")?;
        let out = BufReader::new(child.stdout.take().context("no pipe")?);
        let (said, events) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    break;
                }
            }
        });
        let end = Instant::now() + deadline + GRACE;
        let mut stuck = false;
        loop {
            match events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => match serde_json::from_str(&line)? {
                    Event::Figure(name, value) => drop(run.figures.insert(name, value)),
                    Event::Times(times) => run.times = Some(times),
                    Event::NotSupported(why) => run.end = End::NotSupported(why),
                    Event::Failed(why) => run.end = End::Failed(why),
                    Event::Hangs => run.end = End::Hangs(deadline.as_secs()),
                    Event::Stuck => {
                        stuck = true;
                        break;
                    }
                },
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    run.end = End::Hangs(deadline.as_secs());
                    stuck = true;
                    break;
                }
            }
        }
        // What is stuck is left alone: in its last moments it would only lock more.
        if !stuck {
            let status = child.wait()?;
            if !status.success() && run.end == End::Done {
                run.end = End::Failed(status.to_string());
            }
        }
        Ok(Ended { run, stuck })
    }

    /// A line for a run that has ended.
    fn say(&self, run: &Run) {
        let figures: Vec<_> = run
            .figures
            .iter()
            .map(|(name, value)| format!("{name} {value:.4}"))
            .collect();
        let what = match &run.end {
            End::Done => figures.join(", "),
            End::Hangs(seconds) => format!("hangs: not done within {seconds} s"),
            End::NotSupported(why) => format!("not supported: {why}"),
            End::Failed(why) => format!("FAILED: {why}"),
        };
        println!(
            "{:5.0} s  {} pair {}/{} {} {}: {what}",
            self.begun.elapsed().as_secs_f64(),
            run.scenario,
            run.pair + 1,
            self.pairs(),
            run.subject.name(),
            run.mode,
        );
    }
}

/// Does the work of one run, in the process that was started for it.
///
/// # Errors
///
/// Nobody listens.
pub(crate) fn one(work: &Work) -> Result<()> {
    let watch = crate::session::Watch::begin(work.scenario.deadline(work.quick));
    let done = prepare().and_then(|()| scenarios::run(work, &watch));
    match done {
        Ok(()) => Ok(()),
        // It was told already.
        Err(_) if watch.over() => Ok(()),
        Err(error) if error.is::<crate::session::NotSupported>() => {
            Event::NotSupported(error.to_string()).say()
        }
        Err(error) => Event::Failed(format!("{error:#}")).say(),
    }
}

/// A process with mounts of its own, nothing of which must be read from a disk any more.
fn prepare() -> Result<()> {
    rustix::process::setsid().context("setsid")?;
    crate::mounts::mounts_of_our_own()?;
    rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT).context("mlockall")
}
