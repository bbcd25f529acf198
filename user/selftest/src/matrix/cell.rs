// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is done with one file system and one kind of fill: bind, fill, kill the daemon, fail the disk, mount
//! again, compare.

use std::fmt;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Fill;
use cachefiles_proto::Message;
use rustix::io::Errno;

use super::disk::Disk;
use super::variants::Variant;
use crate::harness::drop_caches;
use crate::harness::eventually;
use crate::harness::kmsg::KernelLog;
use crate::harness::same;
use crate::harness::store::eventually_exists;
use crate::harness::store::object_file;
use crate::harness::store::read_once;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Death;
use crate::harness::Outcome;
use crate::harness::Supervisor;
use crate::harness::SOON;

/// Daemons that are killed.
const KILLS: u32 = 12;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All bytes were right.
    Works {
        /// Daemons that were killed.
        kills: u32,
        /// What was asked for after the disk had failed, in bytes.
        asked: u64,
    },
    /// `bind` has refused it, with this line in the log.
    Refused(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Works { kills, asked } => write!(
                f,
                "works; {kills} kills; {} KiB asked for again after the disk has failed",
                asked >> 10
            ),
            Verdict::Refused(reason) => write!(f, "refused at bind: {reason}"),
        }
    }
}

/// A daemon for the images of the matrix, or why `bind` has refused it.
fn daemon(t: &Context, dir: &Path, fill: Fill) -> Result<Result<Daemon, String>> {
    // What has used it last may still be closing it.
    eventually("the device is free", SOON, || match t.device() {
        Ok(_) => Ok(true),
        Err(error) if error.errno() == Some(Errno::BUSY) => Ok(false),
        Err(error) => Err(error.into()),
    })?;
    let log = KernelLog::end()?;
    match t.daemon_with(dir, &[Command::Fill(fill)], &["plain", "twin", "lz4"]) {
        Ok(daemon) => Ok(Ok(daemon)),
        Err(error) => {
            let known: Option<&cachefiles_proto::Error> = error.downcast_ref();
            let errno = known.and_then(cachefiles_proto::Error::errno);
            ensure!(errno == Some(Errno::OPNOTSUPP), "bind: {error:#}");
            let mut lines = log.lines().into_iter().map(|line| line.text);
            let line = lines.find(|line| line.contains("cachefiles_ondemand: "));
            let line = line.context("bind refused it, and the log does not say why")?;
            Ok(Err(line.replace("cachefiles_ondemand: ", "")))
        }
    }
}

/// All of it.
///
/// # Errors
///
/// A wrong byte, or anything that should work and does not.
pub fn run(t: &Context, disk: &Disk, variant: &Variant, fill: Fill) -> Result<Verdict> {
    let dir = disk.make(variant)?;
    let tried = attempt(t, disk, variant, fill, &dir);
    disk.fail_writes(false)?;
    let idle = disk.unmount();
    let verdict = tried?;
    idle?;
    if let (true, Verdict::Refused(reason)) = (variant.must_work, &verdict) {
        anyhow::bail!("refused, but it must work: {reason}");
    }
    Ok(verdict)
}

fn attempt(t: &Context, disk: &Disk, variant: &Variant, fill: Fill, dir: &Path) -> Result<Verdict> {
    let mut first = match daemon(t, dir, fill)? {
        Ok(daemon) => daemon,
        Err(reason) => return Ok(Verdict::Refused(reason)),
    };
    filled_and_read_again(t, &mut first).context("fill")?;
    let kills = killed(t, first).context("kills")?;
    drop_caches()?;
    let failing = served(t, dir, fill)?;
    fails(t, disk, failing, dir).context("while the disk fails")?;
    disk.unmount().context("unmount, while the disk fails")?;
    disk.fail_writes(false)?;
    disk.repair(variant).context("repair")?;
    let mut last = served(t, dir, fill)?;
    for name in ["plain", "lz4", "twin"] {
        let data = read_once(t, &mut last, &format!("fsid={name}"))
            .with_context(|| format!("{name}, after the disk has failed"))?;
        same(name, &data, &t.images.contents(name)?)?;
    }
    let asked = last.reads().iter().map(|(_, len)| len).sum();
    let size = t.images.get("twin")?.size;
    ensure!(
        asked < size,
        "all of an image was asked for, of which a part was on the disk"
    );
    Ok(Verdict::Works { kills, asked })
}

/// The same as [`daemon`], where it was not refused before.
fn served(t: &Context, dir: &Path, fill: Fill) -> Result<Daemon> {
    daemon(t, dir, fill)?.map_err(|reason| anyhow::anyhow!("refused later: {reason}"))
}

/// What was filled is read again from the disk, without a READ.
fn filled_and_read_again(t: &Context, daemon: &mut Daemon) -> Result<()> {
    let expected = t.images.contents("plain")?;
    for again in [false, true] {
        daemon.log.clear();
        let data = read_once(t, daemon, "fsid=plain")?;
        same("the image", &data, &expected)?;
        let reads = daemon.reads();
        ensure!(!again || reads.is_empty(), "asked again: {reads:?}");
        drop_caches()?;
    }
    Ok(())
}

/// A reader of compressed data goes on while daemons die; tells how many did.
fn killed(t: &Context, mut daemon: Daemon) -> Result<u32> {
    let at = t.mounted(&mut daemon, "fsid=lz4")?;
    drop_caches()?;
    let mut supervisor = Supervisor::of(t, daemon)?;
    let expected = t.images.contents("lz4")?;
    let mut reader = t.block_reader(&at, 0, expected.len())?;
    let mut deaths = [Death::Unanswered(1), Death::Filled(1), Death::Unanswered(2)]
        .into_iter()
        .cycle();
    while supervisor.kills < KILLS {
        supervisor.start(deaths.next().unwrap_or(Death::Never))?;
        if supervisor.outlives(&reader)? {
            break;
        }
        supervisor.wait_for_death()?;
    }
    supervisor.start(Death::Never)?;
    let data = reader.wait(SOON)?.ok("read")?;
    same("the compressed image", &data, &expected)?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    Ok(supervisor.kills)
}

/// Answers whatever comes of it: a READ that cannot be stored ends without its data.
fn answer_anyway(daemon: &mut Daemon, message: Message) -> Result<()> {
    let Message::Read(read) = &message else {
        return daemon.answer(message);
    };
    let filled = daemon.fill(read);
    daemon
        .object(read.object_id)?
        .file
        .read_complete(read.msg_id)?;
    if let Err(error) = filled {
        let is_of_disk = error
            .downcast_ref::<cachefiles_proto::Error>()
            .and_then(cachefiles_proto::Error::errno)
            .is_some_and(|errno| [Errno::IO, Errno::NOSPC, Errno::ROFS].contains(&errno));
        ensure!(is_of_disk, "a fill: {error:#}");
    }
    Ok(())
}

/// Data that cannot be written comes to readers rightly, or not at all.
fn fails(t: &Context, disk: &Disk, mut daemon: Daemon, dir: &Path) -> Result<()> {
    let expected = t.images.contents("twin")?;
    let quarter = expected.len() / 4 / 4096 * 4096;
    let at = t.mounted(&mut daemon, "fsid=twin")?;
    let mut reader = t.reader(&at, 0, quarter)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let file = object_file(dir, "erofs,twin", "twin")?;
    eventually_exists(&file, &mut daemon)?;
    rustix::fs::syncfs(std::fs::File::open(dir)?)?;
    disk.fail_writes(true)?;
    for part in 0..4 {
        let start = part * quarter;
        let mut reader = t.block_reader(&at, start, quarter)?;
        let outcome = daemon.serve_with(&mut reader, answer_anyway)?;
        if let Outcome::Done(data) = outcome {
            same("a part", &data, &expected[start..start + quarter])?;
        }
        drop_caches()?;
    }
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount").map(drop)
}
