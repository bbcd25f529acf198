// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd top`: what the daemon does, again and again.
//!
//! | module | what it is |
//! |---|---|
//! | `rates` | what happened between two looks |
//! | `batch` | a look as text |
//! | `view` | a look that fills a terminal |
//! | `screen` | the terminal: keys, and its state before and after |

mod batch;
mod rates;
#[cfg(feature = "screen")]
mod screen;
#[cfg(feature = "screen")]
mod view;

use std::io::ErrorKind;
#[cfg(feature = "screen")]
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;

use self::rates::Rates;
#[cfg(feature = "screen")]
use self::screen::Screen;
#[cfg(feature = "screen")]
use self::screen::Wish;
use crate::cli;
use crate::control;
use crate::images;
use crate::images::Image;
use crate::report::Report;

/// How long the keeper may take to answer: keys wait as long.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What there is to show.
struct Look {
    /// What the daemon does, or why nobody knows.
    daemon: Result<Daemon, String>,
    images: Vec<Image>,
}

struct Daemon {
    report: Report,
    rates: Rates,
}

impl Daemon {
    /// One line about the processes.
    fn summary(&self) -> String {
        let report = &self.report;
        let worker = match report.worker_pid {
            Some(pid) => format!("worker {pid}"),
            None => "no worker".to_owned(),
        };
        format!(
            "keeper {}, {worker}, worker restarts {}, up {} s",
            report.keeper_pid,
            report.worker_restarts(),
            report.uptime_seconds
        )
    }

    /// What time the rates are of.
    fn period(&self) -> String {
        match self.rates.over {
            Some(time) => format!("over {:.1} s", time.as_secs_f64()),
            None => "since the keeper's start".to_owned(),
        }
    }

    /// Names and values.
    fn numbers(&self) -> [(&'static str, String); 7] {
        let rates = &self.rates;
        [
            ("READs/s", rate(rates.reads)),
            ("OPENs/s", rate(rates.opens)),
            ("filled/s", images::size(rates.bytes)),
            ("ahead/s", images::size(rates.ahead)),
            ("in flight", self.report.in_flight().to_string()),
            ("retries/s", rate(rates.retries)),
            ("errors/s", rate(rates.errors)),
        ]
    }

    /// How many in a hundred requests took no longer than what.
    fn latency(&self) -> [(&'static str, String); 3] {
        let within = |percent| match self.rates.latency.percentile(percent) {
            Some(time) => format!("{time:?}"),
            None => "-".to_owned(),
        };
        [
            ("50 %", within(50)),
            ("90 %", within(90)),
            ("99 %", within(99)),
        ]
    }
}

fn rate(rate: f64) -> String {
    if rate < 10.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

/// Looks at a daemon from time to time.
struct Watcher {
    run_dir: PathBuf,
    last: Option<(Instant, Report)>,
}

impl Watcher {
    fn new(run_dir: &Path) -> Self {
        Watcher {
            run_dir: run_dir.to_owned(),
            last: None,
        }
    }

    fn look(&mut self) -> anyhow::Result<Look> {
        let daemon = match control::client::stats(&self.run_dir, ANSWER_WITHIN) {
            Ok(Some(report)) => Ok(self.daemon(report)),
            Ok(None) => Err(format!("no keeper answers in {}", self.run_dir.display())),
            Err(error) => Err(format!("{error:#}")),
        };
        // Of a daemon that is away it is still known where its cache is.
        let cache = self
            .last
            .as_ref()
            .and_then(|(_, report)| report.cache.as_deref());
        Ok(Look {
            daemon,
            images: images::all(cache)?,
        })
    }

    fn daemon(&mut self, report: Report) -> Daemon {
        let now = Instant::now();
        let rates = match &self.last {
            Some((then, earlier)) => Rates::between(earlier, &report, now - *then),
            None => Rates::since_start(&report),
        };
        self.last = Some((now, report.clone()));
        Daemon { report, rates }
    }
}

/// Shows what a daemon does, until somebody has seen enough.
///
/// # Errors
///
/// There is no `/proc`; the terminal or standard output cannot be used. A daemon that does not answer is
/// shown, and is no error.
pub fn run(args: &cli::Top) -> anyhow::Result<()> {
    #[cfg(feature = "screen")]
    if !args.batch && std::io::stdout().is_terminal() {
        return fill_terminal(args);
    }
    print(args)
}

#[cfg(feature = "screen")]
fn fill_terminal(args: &cli::Top) -> anyhow::Result<()> {
    let mut watcher = Watcher::new(&args.run_dir);
    let mut screen = Screen::open()?;
    let mut looks = 0;
    loop {
        let next = Instant::now() + args.interval;
        let look = watcher.look()?;
        looks += 1;
        if args.count.is_some_and(|count| looks > count.get()) {
            return Ok(());
        }
        loop {
            screen.draw(&look, args.interval)?;
            match screen.wait(next)? {
                Wish::Redraw => {}
                Wish::Look => break,
                Wish::End => return Ok(()),
            }
        }
    }
}

fn print(args: &cli::Top) -> anyhow::Result<()> {
    let mut watcher = Watcher::new(&args.run_dir);
    let mut looks = 0;
    loop {
        let text = batch::text(&watcher.look()?);
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // Who reads it has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            other => other.context("cannot write to standard output")?,
        }
        looks += 1;
        if args.count.is_some_and(|count| looks >= count.get()) {
            return Ok(());
        }
        out.write_all(b"\n").ok();
        drop(out);
        thread::sleep(args.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::tests::cached;

    /// A daemon with ten READs a second, and two images.
    pub(super) fn look() -> Look {
        let mut report = crate::report::tests::report();
        report.counters.reads = 20;
        report.counters.bytes = 4 << 20;
        report.counters.ahead_bytes = 1 << 20;
        report.counters.requests_begun = 5;
        report.latency = crate::latency::Latency(vec![0, 0, 9, 1]);
        Look {
            daemon: Ok(Daemon {
                rates: Rates::since_start(&report),
                report,
            }),
            images: vec![
                cached("web/first", 1 << 20, Some(2 << 20)),
                cached("web/second", 0, None),
            ],
        }
    }

    #[test]
    fn a_daemon_that_comes_back_is_shown_again() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new(root.path());
        let look = watcher.look().unwrap();
        assert!(look.daemon.err().unwrap().contains("no keeper answers"));
        let report = crate::report::tests::report();
        assert_eq!(watcher.daemon(report.clone()).rates.over, None);
        assert!(watcher.daemon(report.clone()).rates.over.is_some());
        // It goes, and comes back as another one.
        assert!(watcher.look().unwrap().daemon.is_err());
        let other = Report {
            keeper_pid: report.keeper_pid + 1,
            ..report
        };
        assert_eq!(watcher.daemon(other).rates.over, None);
    }

    #[test]
    fn small_rates_have_a_digit_more() {
        assert_eq!(
            [rate(0.0), rate(9.94), rate(1234.5)],
            ["0.0", "9.9", "1234"]
        );
    }
}
