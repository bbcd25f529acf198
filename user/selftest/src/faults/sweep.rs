// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs an operation again and again, each time with another fault, until a run has none.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;

use super::injector::Injector;
use super::log;
use super::log::RunLog;
use super::operations;
use super::plan::Item;
use super::plan::Kind;
use super::rig::After;
use super::rig::Rig;
use crate::harness::Context;
use crate::store::report::comment;

/// After so many bad runs an item is given up: what follows says nothing new.
const MOST_BAD: usize = 5;

/// No operation has so many allocations or requests.
const MOST: u64 = 3000;

/// How often it is told how far an item is.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// All items of a run of the program.
#[derive(Debug)]
pub struct Sweep<'a> {
    t: &'a Context,
    /// Those that are not in use.
    injectors: BTreeMap<Kind, Injector>,
    /// How many disks were made.
    disks: u32,
    /// Instead of all: the only one that fails.
    only: Option<u64>,
}

/// What came of an item.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    faults: u64,
    repaired: u64,
    places: BTreeSet<String>,
    bad: Vec<String>,
}

impl<'a> Sweep<'a> {
    /// `only`: the n of the only run of each item.
    #[must_use]
    pub fn new(t: &'a Context, only: Option<u64>) -> Self {
        Sweep {
            t,
            injectors: BTreeMap::new(),
            disks: 0,
            only,
        }
    }

    /// Sweeps an item.
    ///
    /// # Errors
    ///
    /// A run was bad, or nothing failed.
    pub fn item(&mut self, item: Item) -> Result<()> {
        let injector = match self.injectors.remove(&item.kind) {
            Some(injector) => injector,
            None => Injector::new(item.kind)?,
        };
        self.disks += 1;
        let file = self.t.dir.join(format!("disk{}", self.disks));
        let mut rig = Rig::new(self.t, injector, file.clone())?;
        let (tally, begun) = (Tally::default(), Instant::now());
        let (tally, ended) = self.runs(&mut rig, item, tally);
        comment(format!(
            "events: faults={} {}={}",
            tally.faults,
            item.event(),
            tally.faults
        ));
        comment(format!(
            "{item}: {} faults at {} places in {} runs, the disk repaired {} times, {} s",
            tally.faults,
            tally.places.len(),
            tally.runs,
            tally.repaired,
            begun.elapsed().as_secs()
        ));
        tally.bad.iter().for_each(comment);
        rig.reset().context("what was used is still in use")?;
        self.injectors.insert(item.kind, rig.into_injector());
        std::fs::remove_file(&file)?;
        ended?;
        ensure!(tally.bad.is_empty(), "{} runs were bad", tally.bad.len());
        ensure!(
            tally.faults > 0 || item.may_have_none(),
            "nothing has failed: this proves nothing"
        );
        Ok(())
    }

    fn runs(&self, rig: &mut Rig<'_>, item: Item, mut tally: Tally) -> (Tally, Result<()>) {
        let mut told = Instant::now();
        let (first, last) = (self.only.unwrap_or(1), self.only.unwrap_or(MOST));
        let mut numbers = item
            .numbers()
            .skip_while(|n| *n < first)
            .take_while(|n| *n <= last);
        let Some(mut nth) = numbers.next() else {
            return (tally, Ok(()));
        };
        let mut missed = false;
        loop {
            let failed = match one_run(rig, item, nth, &mut tally) {
                Ok(failed) => failed,
                Err(error) => return (tally, Err(error)),
            };
            if told.elapsed() > HEARTBEAT {
                told = Instant::now();
                comment(format!("{item}: {} faults so far", tally.faults));
            }
            if tally.bad.len() >= MOST_BAD {
                return (tally, Ok(()));
            }
            // Where two processors count at a time the kernel's count may be another than this
            // program's: the second run without a fault is after that was looked at.
            if !failed && missed {
                return (tally, Ok(()));
            }
            missed = !failed;
            if failed {
                match numbers.next() {
                    Some(next) => nth = next,
                    None if self.only.is_some() => return (tally, Ok(())),
                    None => {
                        let error = anyhow::anyhow!("no end after {MOST}");
                        return (tally, Err(error));
                    }
                }
            }
        }
    }
}

/// A run; whether there was a fault. What is bad about it is noted.
///
/// # Errors
///
/// Nothing can go on.
fn one_run(rig: &mut Rig<'_>, item: Item, nth: u64, tally: &mut Tally) -> Result<bool> {
    rig.nth = nth;
    rig.log = RunLog::begin()?;
    tally.runs += 1;
    rig.injector.arm(nth)?;
    let ended = operations::run(rig, item.operation);
    let failed = rig.injector.disarm()?;
    let ended = ended.and_then(|after| match after {
        After::Fine => Ok(()),
        After::Broken(mounted) => {
            tally.repaired += 1;
            rig.repair(&mounted)
        }
    });
    let ended = ended.and_then(|()| rig.log.no_report());
    tally.faults += u64::from(failed);
    let callers = rig.log.callers();
    if let Some(place) = log::place(&callers) {
        tally.places.insert(place.to_owned());
    }
    if let Err(error) = ended {
        let said = rig.log.messages().join("\n  ");
        tally.bad.push(format!(
            "{item} --only {nth}: {error:#}\n  fault: {}\n  {said}",
            log::shown(&callers)
        ));
        rig.reset().context("what was used is still in use")?;
        if !rig.disk.can_be_written() {
            rig.disk.repair()?;
            rig.injector.use_disk(rig.disk.device()?)?;
        }
        if !rig.disk.can_be_written() {
            bail!("the disk cannot be repaired");
        }
    }
    Ok(failed)
}
