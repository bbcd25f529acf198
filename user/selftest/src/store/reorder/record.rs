// SPDX-License-Identifier: MIT OR Apache-2.0

//! Using a cache on a disk whose writes are logged: images are mounted, read in parts, unmounted, replaced by other
//! versions, culled, and the daemon dies, in an order that follows from a seed.
//!
//! Some sessions tell no token, and serve any version: what they add, also over what is stored, must not count
//! under a token later. What a reader gets under a token is compared here as well.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Fill;
use cachefiles_proto::Message;
use rustix::io::Errno;

use super::device::mount;
use super::device::unmount;
use super::device::Recorded;
use super::random::Random;
use super::versions;
use super::versions::letter;
use super::versions::Versions;
use super::versions::OBJECTS;
use super::versions::VERSIONS;
use super::visit;
use super::visit::Step;
use crate::harness::drop_caches;
use crate::harness::store::parent;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::SOON;
use crate::store::report::comment;

/// What is recorded.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The disk, a block device.
    pub disk: PathBuf,
    /// `ext4` or `xfs`.
    pub file_system: String,
    /// How data is stored; either way by turns without one.
    pub fill: Option<Fill>,
    /// For all that is drawn.
    pub seed: u64,
    /// How often a cache is bound.
    pub sessions: u32,
}

/// The directory of the cache on the disk.
pub const CACHE: &str = "cache-dir";

/// Of a fill, in bytes.
const PAGE: u64 = 4096;

/// Makes a file system, uses a cache on it, and unmounts it.
///
/// # Errors
///
/// The disk has no volatile cache; something failed, or a reader got a wrong byte.
pub fn run(t: &Context, recording: &Recording) -> Result<()> {
    let images = visit::images(t);
    fs::create_dir_all(&images)?;
    let versions = Versions::make(&images)?;
    let disk = Recorded::new(&recording.disk)?;
    let at = t.settings.work_dir.join("recorded");
    disk.format(&recording.file_system)?;
    mount(&recording.disk, &at, &recording.file_system)?;
    fs::create_dir(at.join(CACHE))?;
    rustix::fs::syncfs(File::open(&at)?)?;
    disk.mark(&format!(
        "begin file-system={} bytes={}",
        recording.file_system, disk.bytes
    ))?;
    let mut user = User {
        t,
        disk: &disk,
        root: &at,
        versions: &versions,
        served: (0..OBJECTS).map(|_| Served::default()).collect(),
        random: Random::new(recording.seed),
        counts: Counts::default(),
    };
    for session in 0..recording.sessions {
        let buffered = match recording.fill {
            Some(fill) => fill == Fill::Buffered,
            None => user.random.percent(50),
        };
        user.session(session, buffered)
            .with_context(|| format!("session {session}"))?;
    }
    let counts = user.counts;
    disk.mark("end")?;
    unmount(&at)?;
    comment(format!("{counts:?}"));
    Ok(())
}

/// What the daemon serves as an object.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    version: usize,
    untold: bool,
    mounted: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    sessions: u32,
    buffered: u32,
    deaths: u32,
    mounts: u32,
    untold: u32,
    replaced: u32,
    culled: u32,
    syncs: u32,
    fills: u32,
}

struct User<'a> {
    t: &'a Context,
    disk: &'a Recorded,
    root: &'a Path,
    versions: &'a Versions,
    served: Vec<Served>,
    random: Random,
    counts: Counts,
}

impl User<'_> {
    /// Binds the cache, and uses it for a while.
    fn session(&mut self, number: u32, buffered: bool) -> Result<()> {
        let fill = if buffered {
            Fill::Buffered
        } else {
            Fill::Direct
        };
        let setup = [Command::Fill(fill), Command::Identity];
        let dir = self.root.join(CACHE);
        let mut daemon = self.t.daemon_with(&dir, &setup, &[])?;
        self.counts.sessions += 1;
        self.counts.buffered += u32::from(buffered);
        for step in 0..1 + self.random.below(4) {
            let steps = self.draw_steps();
            let said = self.describe(&steps);
            self.disk
                .mark(&format!("session {number} step {step} {fill:?}: {said}"))?;
            let mut task = visit::start(self.t, &steps)?;
            let outcome =
                daemon.serve_with(&mut task, |daemon, message| self.answer(daemon, message))?;
            outcome.ok("the readers")?;
            self.between(&daemon)?;
        }
        let mounted: Vec<Step> = self.unmount_all();
        let mut task = visit::start(self.t, &mounted);
        if self.random.percent(30) {
            // The daemon dies before the images are unmounted.
            self.counts.deaths += 1;
            drop(daemon);
            task?.wait(SOON)?.ok("umount")?;
        } else {
            let task = task
                .as_mut()
                .map_err(|error| anyhow::anyhow!("{error:#}"))?;
            daemon
                .serve_with(task, |daemon, message| self.answer(daemon, message))?
                .ok("umount")?;
        }
        drop_caches()
    }

    /// Some images are mounted and read, some are unmounted again.
    fn draw_steps(&mut self) -> Vec<Step> {
        let mut objects: Vec<usize> = (0..OBJECTS).collect();
        self.random.shuffle(&mut objects);
        objects.truncate(1 + self.random.below(4));
        let mut steps = Vec::new();
        for object in objects {
            if !self.served[object].mounted {
                self.choose_version(object);
                steps.push(Step::Mount(object));
                self.served[object].mounted = true;
                self.counts.mounts += 1;
                self.counts.untold += u32::from(self.served[object].untold);
            }
            for _ in 0..1 + self.random.below(4) {
                steps.push(self.draw_read(object));
            }
            if self.random.percent(60) {
                steps.push(Step::Unmount(object));
                self.served[object].mounted = false;
            }
        }
        steps
    }

    fn choose_version(&mut self, object: usize) {
        let served = &mut self.served[object];
        if self.random.percent(40) {
            served.version = (served.version + 1 + self.random.below(VERSIONS - 1)) % VERSIONS;
            self.counts.replaced += 1;
        }
        served.untold = self.random.percent(15);
    }

    fn draw_read(&mut self, object: usize) -> Step {
        let Served {
            version, untold, ..
        } = self.served[object];
        let all = versions::len(object);
        let page = usize::try_from(PAGE).unwrap_or(all);
        let (from, len) = match self.random.below(5) {
            0 => (0, all),
            1 => (all / 2 / page * page, all / 2),
            _ => {
                let from = self.random.below(all / page) * page;
                (from, page * (1 + self.random.below(8)))
            }
        };
        Step::Read {
            object,
            // Without a token the version of what is stored is not known.
            version: (!untold).then_some(version),
            from,
            len,
        }
    }

    fn describe(&self, steps: &[Step]) -> String {
        let mut words = Vec::new();
        for step in steps {
            let (Step::Mount(object) | Step::Unmount(object) | Step::Read { object, .. }) = *step;
            let served = self.served[object];
            let told = if served.untold { "untold" } else { "told" };
            words.push(match step {
                Step::Mount(_) => {
                    let version = letter(served.version);
                    format!("mount {} {version} {told}", versions::key(object))
                }
                Step::Read { from, len, .. } => format!("read {from}+{len}"),
                Step::Unmount(_) => format!("unmount {}", versions::key(object)),
            });
        }
        words.join(", ")
    }

    /// What happens between two processes that read.
    fn between(&mut self, daemon: &Daemon) -> Result<()> {
        if self.random.percent(25) {
            rustix::fs::syncfs(File::open(self.root)?)?;
            self.counts.syncs += 1;
        }
        if self.random.percent(25) {
            self.cull(daemon)?;
        }
        Ok(())
    }

    /// Has the file of an object removed, if it is there and not in use.
    fn cull(&mut self, daemon: &Daemon) -> Result<()> {
        let object = self.random.below(OBJECTS);
        let path = versions::path(&self.root.join(CACHE), object)?;
        if std::env::set_current_dir(parent(&path)?).is_err() {
            return Ok(());
        }
        let culled = daemon.command(&format!("cull D{}", versions::key(object)));
        std::env::set_current_dir("/")?;
        match culled {
            Ok(()) => self.counts.culled += 1,
            Err(Errno::NOENT | Errno::BUSY) => {}
            Err(errno) => return Err(errno).context("cull"),
        }
        Ok(())
    }

    fn unmount_all(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (object, served) in self.served.iter_mut().enumerate() {
            if served.mounted {
                steps.push(Step::Unmount(object));
                served.mounted = false;
            }
        }
        steps
    }

    /// Answers as a daemon should, but in pieces, in any order, and more than was asked for.
    fn answer(&mut self, daemon: &mut Daemon, message: Message) -> Result<()> {
        match message {
            Message::Open(open) => {
                let object = (0..OBJECTS)
                    .find(|&object| versions::key(object).as_bytes() == open.cookie_key)
                    .context("an unknown object")?;
                let served = self.served[object];
                daemon.token = match served.untold {
                    true => None,
                    false => Some(versions::token(object, served.version)?),
                };
                let image = self.versions.image(object, served.version);
                daemon.accept(open, image).map(drop)
            }
            Message::Read(read) => {
                let object = daemon.object(read.object_id)?;
                let all = u64::try_from(object.image.bytes().len())?;
                for (off, len) in self.pieces(read.off, read.len, all) {
                    let data = object.image.range(off, len);
                    object
                        .file
                        .write_all_at(data, off)
                        .with_context(|| format!("fill {off}+{len} of {}", object.image.name))?;
                    self.counts.fills += 1;
                }
                object.file.read_complete(read.msg_id)?;
                Ok(())
            }
            Message::Close(_) => daemon.answer(message),
        }
    }

    fn pieces(&mut self, off: u64, len: u64, all: u64) -> Vec<(u64, u64)> {
        let random = &mut self.random;
        let mut pages = |most| PAGE * u64::try_from(random.below(most)).unwrap_or(0);
        let (mut begin, mut end) = (off, off + len);
        if pages(3) == 0 {
            begin = begin.saturating_sub(pages(16));
            end += pages(16);
        }
        let end = end.min(all);
        let most = pages(24) + PAGE;
        let mut pieces = Vec::new();
        while begin < end {
            let len = most.min(end - begin);
            pieces.push((begin, len));
            begin += len;
        }
        random.shuffle(&mut pieces);
        pieces
    }
}
