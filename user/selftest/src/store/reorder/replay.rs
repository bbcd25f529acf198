// SPDX-License-Identifier: MIT OR Apache-2.0

//! Points of a log: at each the disk is made that a loss of power may leave, mounted, and checked.
//!
//! What is tried at a point follows from the log, a seed and the number of the point alone, so that one point can
//! be tried again by itself. At the end two faults are made at the last point, which must be found: data that
//! the disk has lost though it was flushed, and tokens that stand for another version.

use std::fs;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command as Program;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::BLOCK_SIZE;

use super::check;
use super::check::Found;
use super::check::Tokens;
use super::device;
use super::disk::Changes;
use super::disk::Disk;
use super::log::Log;
use super::random::Random;
use super::record;
use super::survive;
use super::survive::Choice;
use super::survive::Crash;
use super::survive::Cut;
use super::versions::Versions;
use super::visit;
use crate::harness::kmsg::KernelLog;
use crate::harness::Context;
use crate::store::report::comment;
use crate::store::report::Report;

/// What is replayed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The log.
    pub log: PathBuf,
    /// Of the choices at each point.
    pub seed: u64,
    /// The number of the first point.
    pub first: u64,
    /// How many points.
    pub points: u64,
}

/// After so many failures nothing more is learned.
const ENOUGH: usize = 5;

/// How often it is said how far it is.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// One point.
#[derive(Clone, Debug)]
struct Point {
    number: u64,
    position: usize,
    choice: Choice,
    torn: bool,
    random: Random,
}

impl Point {
    /// The point of a number, between the entries `begin` and `end`.
    fn new(log: &Log, begin: usize, end: usize, seed: u64, number: u64) -> Self {
        let mut random = Random::of(seed, number);
        let mut position = begin + random.below(end - begin + 1);
        // In half of the cases just before a flush, where most can be lost.
        if random.percent(50) {
            let next = (position..end).find(|&index| log.entries[index].flushes());
            position = next.unwrap_or(end);
        }
        Point {
            number,
            position,
            choice: Choice::draw(&mut random),
            torn: random.percent(40),
            random,
        }
    }

    fn crash(&mut self, log: &Log, versions: &Versions, whole: Range<u64>) -> Crash {
        let is_data = |index: usize| {
            let mut blocks = log.data(index).chunks(BLOCK_SIZE);
            blocks.any(|block| versions.is_data(block))
        };
        let cut = Cut {
            position: self.position,
            choice: self.choice,
            torn: self.torn,
            whole,
        };
        survive::crash(log, &cut, &mut self.random, is_data)
    }
}

/// Replays, and prints two results.
///
/// # Errors
///
/// The log cannot be read, or shows no use of a cache; no disk could be made.
pub fn run(t: &Context, plan: &Plan) -> Result<ExitCode> {
    let mut report = Report::new(2);
    let images = visit::images(t);
    fs::create_dir_all(&images)?;
    let versions = Versions::make(&images)?;
    let bytes = fs::read(&plan.log).with_context(|| plan.log.display().to_string())?;
    let log = Log::new(bytes)?;
    let (begin, said) = log.find_mark("begin ").context("nothing was recorded")?;
    let (end, _) = log
        .find_mark("end")
        .context("the recording was not finished")?;
    let value = |name: &str| {
        let mut words = said.split(' ').filter_map(|word| word.split_once('='));
        words
            .find_map(|(word, value)| (word == name).then_some(value))
            .with_context(|| format!("no {name} in the first mark"))
    };
    let target = Target::new(t, value("file-system")?, value("bytes")?.parse()?)?;
    let flushes = log.entries[begin..end]
        .iter()
        .filter(|one| one.flushes())
        .count();
    comment(format!(
        "{}: {} writes and {flushes} flushes between entries {begin} and {end}",
        target.file_system,
        end - begin - flushes
    ));
    ensure!(flushes > 0, "the disk was never flushed");
    let mut points: Vec<Point> = (plan.first..plan.first + plan.points)
        .map(|number| Point::new(&log, begin, end, plan.seed, number))
        .collect();
    points.sort_by_key(|point| (point.position, point.number));
    let mut replay = Replay {
        t,
        plan,
        log: &log,
        versions: &versions,
        target: &target,
        disk: Disk::default(),
        sums: Sums::default(),
    };
    report.step("reorder_points", || replay.all(&points));
    let last = points.last().map_or(end, |point| point.position);
    report.step("reorder_finds_faults", || replay.faults_are_found(last));
    Ok(report.exit_code())
}

/// Over all points.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    points: u64,
    lost: usize,
    survived: usize,
    found: Found,
}

struct Replay<'a> {
    t: &'a Context,
    plan: &'a Plan,
    log: &'a Log,
    versions: &'a Versions,
    target: &'a Target,
    disk: Disk,
    sums: Sums,
}

impl Replay<'_> {
    fn all(&mut self, points: &[Point]) -> Result<()> {
        let begun = Instant::now();
        let mut said = begun;
        let mut failed = Vec::new();
        for (index, point) in points.iter().enumerate() {
            if let Err(error) = self.one(point) {
                comment(format!("point {} FAILED: {error:#}", point.number));
                let mark = self.log.mark_before(point.position).unwrap_or_default();
                comment(format!("  after entry {}: {mark}", point.position));
                failed.push(point.number);
                if failed.len() >= ENOUGH {
                    break;
                }
            }
            if said.elapsed() > HEARTBEAT {
                said = Instant::now();
                let done = index + 1;
                let percent = done * 100 / points.len();
                comment(format!("{done} of {} points ({percent} %)", points.len()));
            }
        }
        let Sums {
            points,
            lost,
            survived,
            found,
        } = self.sums;
        println!("# events: replayed={points}");
        comment(format!(
            "{points} points, {} ms each: {lost} writes lost and {survived} kept that were not flushed; \
             {} files under a token with {} KiB, {} without; {} READs",
            begun.elapsed().as_millis() / u128::from(points.max(1)),
            found.told,
            found.bytes >> 10,
            found.untold,
            found.reads
        ));
        ensure!(
            failed.is_empty(),
            "failed points: {failed:?} of seed {}; again: --seed {} --point {}",
            self.plan.seed,
            self.plan.seed,
            failed[0]
        );
        ensure!(
            found.told > 0 || points < 10,
            "nothing was stored at any point: that proves nothing"
        );
        Ok(())
    }

    fn one(&mut self, point: &Point) -> Result<()> {
        let mut point = point.clone();
        let crash = point.crash(self.log, self.versions, self.target.superblock());
        self.disk.advance(self.log, crash.flushed);
        let changes = self.disk.changed_by(self.log, &crash);
        let tokens = Tokens::Right;
        let checked = self.check(&changes, tokens, &mut point.random);
        let found = checked.with_context(|| {
            format!(
                "entry {} of {}, flushed up to {}, {} of {} writes kept: {}{}",
                crash.position,
                self.log.entries.len(),
                crash.flushed,
                crash.survivors.len(),
                crash.survivors.len() + crash.lost,
                point.choice,
                if point.torn { ", torn" } else { "" }
            )
        })?;
        self.sums.points += 1;
        self.sums.lost += crash.lost;
        self.sums.survived += crash.survivors.len();
        self.sums.found.told += found.told;
        self.sums.found.untold += found.untold;
        self.sums.found.bytes += found.bytes;
        self.sums.found.reads += found.reads;
        Ok(())
    }

    fn check(&self, changes: &Changes, tokens: Tokens, random: &mut Random) -> Result<Found> {
        self.target.fill(&self.disk, changes)?;
        let log = KernelLog::end()?;
        self.target.mount()?;
        let dir = self.target.mounted.join(record::CACHE);
        let found = check::run(self.t, &dir, self.versions, tokens, random);
        device::unmount(&self.target.mounted)?;
        let found = found?;
        let bad = log.lines().into_iter().find(|line| is_damage(&line.text));
        if let Some(line) = bad {
            bail!("the file system is damaged: {}", line.text);
        }
        Ok(found)
    }

    /// Makes what no disk and no module may do, at the last point, and wants it found.
    fn faults_are_found(&mut self, position: usize) -> Result<()> {
        let flushed = survive::last_flush(self.log, position);
        // The first place from there on where something is stored under a token.
        let end = self.log.entries.len();
        let mut random = Random::of(self.plan.seed, u64::MAX);
        let places = [flushed, flushed + (end - flushed) / 2, end];
        for place in places {
            let flushed = survive::last_flush(self.log, place);
            if flushed < self.disk.applied() {
                continue;
            }
            self.disk.advance(self.log, flushed);
            let right = self.check(&Changes::default(), Tokens::Right, &mut random)?;
            if right.bytes == 0 {
                continue;
            }
            // A third of all blocks with data.
            let mut count = 0_u32;
            let changes = self.disk.without(|block| {
                let data = self.versions.is_data(block);
                count += u32::from(data);
                data && count % 3 == 0
            });
            self.found("lost data", &changes, Tokens::Right, &mut random)?;
            let exchanged = Tokens::Exchanged;
            return self.found(
                "exchanged tokens",
                &Changes::default(),
                exchanged,
                &mut random,
            );
        }
        bail!("nothing is stored in the end")
    }

    fn found(
        &self,
        what: &str,
        changes: &Changes,
        tokens: Tokens,
        random: &mut Random,
    ) -> Result<()> {
        match self.check(changes, tokens, random) {
            Ok(_) => bail!("{what}: not found"),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains("counts as data"), "{what}: {text}");
                comment(format!("{what}, made on purpose: {text}"));
                Ok(())
            }
        }
    }
}

/// Whether a line of the kernel's log says that a file system is not as it should be.
fn is_damage(text: &str) -> bool {
    text.contains("EXT4-fs error")
        || text.contains("EXT4-fs warning")
        || (text.contains("XFS") && (text.contains("orruption") || text.contains("hutting down")))
}

/// A disk in memory.
struct Target {
    image: File,
    bytes: u64,
    device: PathBuf,
    mounted: PathBuf,
    file_system: String,
}

impl Target {
    fn new(t: &Context, file_system: &str, bytes: u64) -> Result<Self> {
        let path = t.settings.work_dir.join("replayed");
        let image = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        image.set_len(bytes)?;
        // It goes with the machine.
        let made = Program::new("losetup")
            .args(["--find", "--show"])
            .arg(&path)
            .output()?;
        ensure!(
            made.status.success(),
            "losetup: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let device = String::from_utf8(made.stdout)?;
        Ok(Target {
            image,
            bytes,
            device: Path::new(device.trim()).to_owned(),
            mounted: t.settings.work_dir.join("mounted"),
            file_system: file_system.to_owned(),
        })
    }

    fn fill(&self, disk: &Disk, changes: &Changes) -> Result<()> {
        self.image.set_len(0)?;
        self.image.set_len(self.bytes)?;
        disk.write(changes, &self.image)
    }

    /// Where on the disk its superblock is, which its file system must find whole.
    fn superblock(&self) -> Range<u64> {
        match self.file_system.as_str() {
            "ext4" => 1024..2048,
            _ => 0..512,
        }
    }

    fn mount(&self) -> Result<()> {
        device::mount(&self.device, &self.mounted, &self.file_system)
    }
}
