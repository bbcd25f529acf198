// SPDX-License-Identifier: MIT OR Apache-2.0

//! What operations are done with: the disk, the cache, the daemon, and the fault of this run.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::bail;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Fill;
use rustix::mount::UnmountFlags;

use super::disk::Disk;
use super::injector::Injector;
use super::log::RunLog;
use super::plan::Kind;
use crate::harness::eventually;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Image;
use crate::harness::Task;
use crate::harness::SOON;

/// A tiny image, for what mounts one in each run.
pub const SMALL: &str = "small";
/// A larger one, for what reads a block in each run.
pub const PLAIN: &str = "plain";

/// How a run has left the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on, and all was tried again.
    Fine,
    /// The file system does not go on. Once it is repaired, this image must be served.
    Broken(Mounted),
}

/// An image under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Its cookie key.
    pub name: String,
    /// Which image it is.
    pub image: &'static str,
}

impl Mounted {
    /// The options of its mount: each has a volume of its own.
    #[must_use]
    pub fn options(&self) -> String {
        format!("fsid={}", self.name)
    }

    /// The key of its volume.
    #[must_use]
    pub fn volume(&self) -> String {
        format!("erofs,{}", self.name)
    }
}

/// A daemon with a mounted image that is not read whole.
#[derive(Debug)]
pub struct Session {
    /// The daemon.
    pub daemon: Daemon,
    /// The image.
    pub mounted: Mounted,
    /// The next block of its file that nobody has read.
    pub block: usize,
    buffered: bool,
}

/// All that operations need.
#[derive(Debug)]
pub struct Rig<'a> {
    /// Directories, images.
    pub t: &'a Context,
    /// The disk of the store.
    pub disk: Disk,
    /// The directory of the cache.
    pub dir: PathBuf,
    /// Where images are mounted.
    pub at: PathBuf,
    /// What fails.
    pub injector: Injector,
    /// Which one fails in this run, from 1.
    pub nth: u64,
    /// What the kernel has said in this run.
    pub log: RunLog,
    /// What is kept from run to run.
    pub session: Option<Session>,
    /// An image that is stored, for what wants one; see [`Rig::stored`].
    stored: Option<Mounted>,
    names: u32,
}

impl<'a> Rig<'a> {
    /// A new disk, for faults of this kind.
    ///
    /// # Errors
    ///
    /// There is none, or no such faults.
    pub fn new(t: &'a Context, mut injector: Injector, file: PathBuf) -> Result<Self> {
        let disk = Disk::make(t, file)?;
        injector.use_disk(disk.device()?)?;
        let dir = disk.dir().join("c");
        fs::create_dir(&dir)?;
        // A journal that aborts before its first commit would take the directory with it.
        disk.sync();
        Ok(Rig {
            t,
            disk,
            dir,
            at: t.mount_point()?,
            injector,
            nth: 1,
            log: RunLog::begin()?,
            session: None,
            stored: None,
            names: 0,
        })
    }

    /// The injector, for a rig that follows.
    #[must_use]
    pub fn into_injector(self) -> Injector {
        self.injector
    }

    /// A name that the store has not seen.
    pub fn new_name(&mut self, image: &'static str) -> Mounted {
        self.names += 1;
        let name = format!("f{}", self.names);
        Mounted { name, image }
    }

    /// An image that is stored, and not mounted: the same in all runs.
    ///
    /// # Errors
    ///
    /// It cannot be stored.
    pub fn stored(&mut self) -> Result<Mounted> {
        if let Some(stored) = &self.stored {
            return Ok(stored.clone());
        }
        let mounted = self.new_name(SMALL);
        let mut daemon = self.daemon(false)?;
        self.visit(&mut daemon, &mounted)
            .context("storing the image")?;
        self.stored = Some(mounted.clone());
        Ok(mounted)
    }

    /// Forgets all that is in memory of the store, which is not in use: what needs it then has to allocate,
    /// and to read. Dropping all caches would drop the programs, too.
    ///
    /// # Errors
    ///
    /// It is in use.
    pub fn cool(&mut self) -> Result<()> {
        self.reset()?;
        self.disk.mount_again()?;
        self.injector.use_disk(self.disk.device()?)
    }

    /// A device that is set up, and not bound.
    ///
    /// # Errors
    ///
    /// What the device says.
    pub fn device(&self, buffered: bool) -> Result<Device> {
        let device = self.t.device()?;
        if buffered {
            device.send(&Command::Fill(Fill::Buffered))?;
        }
        device.send(&Command::Dir(self.dir.clone()))?;
        Ok(device)
    }

    /// A daemon of a bound cache.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn daemon(&self, buffered: bool) -> Result<Daemon> {
        let device = self.device(buffered)?;
        device.send(&Command::BindOnDemand)?;
        Ok(Daemon::from_device(device))
    }

    /// The daemon serves this image, and no other.
    ///
    /// # Errors
    ///
    /// There is no such image.
    pub fn serves(&self, daemon: &mut Daemon, mounted: &Mounted) -> Result<()> {
        let image = self.t.images.get(mounted.image)?;
        daemon.images = vec![image.named(mounted.name.as_str())];
        Ok(())
    }

    /// The only image that a daemon serves.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn image(daemon: &Daemon) -> Result<Arc<Image>> {
        Ok(Arc::clone(daemon.images.first().context("no image")?))
    }

    /// Begins to mount an image.
    ///
    /// # Errors
    ///
    /// No process could be started.
    pub fn mount(&self, mounted: &Mounted) -> Result<Task> {
        self.t.mount(&mounted.options(), &self.at)
    }

    /// Reads all of the mounted image and unmounts it, without a fault.
    ///
    /// # Errors
    ///
    /// A byte is wrong; one of the two fails.
    pub fn leave(&self, daemon: &mut Daemon, mounted: &Mounted) -> Result<()> {
        self.read_all(daemon, mounted, &["leave"])
    }

    /// Mounts an image, reads all of it, and unmounts it, without a fault.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn visit(&self, daemon: &mut Daemon, mounted: &Mounted) -> Result<()> {
        self.serves(daemon, mounted)?;
        self.read_all(daemon, mounted, &["visit", &mounted.options()])
    }

    fn read_all(&self, daemon: &mut Daemon, mounted: &Mounted, how: &[&str]) -> Result<()> {
        let wanted = self.t.images.contents(mounted.image)?;
        let (at, length) = (self.at.to_string_lossy(), wanted.len().to_string());
        let mut words = how.to_vec();
        words.extend([&*at, &length]);
        let mut task = Task::start(&words, Stdio::null())?;
        let data = daemon.serve(&mut task)?.ok(how[0])?;
        same("the image's file", &data, &wanted)
    }

    /// The session of the runs before, or a new one.
    ///
    /// # Errors
    ///
    /// No image can be mounted.
    pub fn session(&mut self, buffered: bool) -> Result<Session> {
        /// How many blocks of an image are used.
        const BLOCKS: usize = 240;
        match self.session.take() {
            Some(session) if session.block < BLOCKS && session.buffered == buffered => {
                return Ok(session);
            }
            old => {
                drop(old);
                self.unmount_all()?;
            }
        }
        let mounted = self.new_name(PLAIN);
        let mut daemon = self.daemon(buffered)?;
        self.serves(&mut daemon, &mounted)?;
        let mut mount = self.mount(&mounted)?;
        daemon.serve(&mut mount)?.ok("mount")?;
        Ok(Session {
            daemon,
            mounted,
            block: 0,
            buffered,
        })
    }

    /// The operation begins: what is done from now on may fail.
    ///
    /// # Errors
    ///
    /// What `write` says.
    pub fn begin(&self) -> Result<()> {
        self.injector.on()
    }

    /// The operation has ended. What it has left in memory for the disk is written there before, for its
    /// faults belong to it.
    ///
    /// # Errors
    ///
    /// What `write` says.
    pub fn end(&self) -> Result<()> {
        if self.injector.kind() == Kind::Disk {
            self.disk.sync();
        }
        self.injector.off()
    }

    /// Does something that does not belong to the operation, in the middle of it.
    ///
    /// # Errors
    ///
    /// What `write` says; what `run` fails with.
    pub fn aside<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.injector.off()?;
        let value = run()?;
        self.injector.on()?;
        Ok(value)
    }

    /// Whether this run's fault has ended the file system.
    ///
    /// # Errors
    ///
    /// What `read` says.
    pub fn is_broken(&self) -> Result<bool> {
        let disk = self.injector.kind() == Kind::Disk && self.injector.has_failed()?;
        Ok(disk && !self.disk.can_be_written())
    }

    /// Unmounts what is mounted. The daemon is gone.
    ///
    /// # Errors
    ///
    /// It is in use.
    pub fn unmount_all(&self) -> Result<()> {
        eventually("nothing is mounted", SOON, || loop {
            match rustix::mount::unmount(&self.at, UnmountFlags::empty()) {
                Ok(()) => {}
                Err(rustix::io::Errno::INVAL) => return Ok(true),
                Err(rustix::io::Errno::BUSY) => return Ok(false),
                Err(errno) => bail!("umount: {errno}"),
            }
        })
    }

    /// Ends what is kept from run to run.
    ///
    /// # Errors
    ///
    /// An image is in use.
    pub fn reset(&mut self) -> Result<()> {
        self.injector.off()?;
        self.session = None;
        std::env::set_current_dir(Path::new("/"))?;
        self.unmount_all()
    }

    /// Repairs the disk, and has the image served that was being used.
    ///
    /// # Errors
    ///
    /// It cannot be repaired; a byte is wrong.
    pub fn repair(&mut self, mounted: &Mounted) -> Result<()> {
        self.reset()?;
        self.stored = None;
        self.disk.repair().context("repairing the disk")?;
        self.injector.use_disk(self.disk.device()?)?;
        let mut daemon = self.daemon(false)?;
        self.visit(&mut daemon, mounted)
            .context("after the disk was repaired")
    }
}
