// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a running test has at hand.

use std::cell::Cell;
use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Fill;

use super::daemon::Daemon;
use super::image::Image;
use super::image::Images;
use super::image::FILE;
use super::task::Task;
use super::wait::SOON;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A directory on a real file system.
    pub cache_dir: PathBuf,
    /// The device.
    pub device: PathBuf,
    /// A directory for images and mount points.
    pub work_dir: PathBuf,
    /// The module of the backend that is not loaded.
    pub other_module: Option<PathBuf>,
    /// Commands for each device that is opened, such as `fill buffered`: the tests run in that mode.
    pub setup: Vec<String>,
}

/// The surroundings of one test.
#[derive(Debug)]
pub struct Context {
    /// Where things are.
    pub settings: Settings,
    /// The images.
    pub images: Images,
    /// The test's own directory below the cache directory; removed after the test.
    pub dir: PathBuf,
    mounts: RefCell<Vec<PathBuf>>,
    caches: Cell<u32>,
}

impl Context {
    /// Makes the test's directories.
    ///
    /// # Errors
    ///
    /// They cannot be made.
    pub fn new(settings: Settings, dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Context {
            images: Images::in_directory(&settings.work_dir),
            settings,
            dir,
            mounts: RefCell::new(Vec::new()),
            caches: Cell::new(0),
        })
    }

    /// Opens the device, and sets up the mode that all tests run in.
    ///
    /// # Errors
    ///
    /// What `open` says; `EOPNOTSUPP` if the module does not know the mode.
    pub fn device(&self) -> cachefiles_proto::Result<Device> {
        let device = Device::open(&self.settings.device)?;
        for command in &self.settings.setup {
            let sent = device.write_bytes(command.as_bytes());
            sent.map_err(|errno| cachefiles_proto::Error::Command {
                command: command.clone(),
                errno,
            })?;
        }
        Ok(device)
    }

    /// Whether the mode that all tests run in is to store small fills in memory first: then the
    /// daemon's memory need not be aligned.
    #[must_use]
    pub fn fills_in_memory(&self) -> bool {
        let buffered = Command::Fill(Fill::Buffered).to_string();
        self.settings.setup.contains(&buffered)
    }

    /// An empty directory on the real file system.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn new_dir(&self) -> Result<PathBuf> {
        let number = self.caches.replace(self.caches.get() + 1);
        let dir = self.dir.join(format!("c{number}"));
        fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// A daemon with a cache bound in `dir`.
    ///
    /// # Errors
    ///
    /// The device refuses something.
    pub fn daemon_in(&self, dir: &Path) -> Result<Daemon> {
        self.daemon_with(dir, &[], &[])
    }

    /// The same after these commands, with the images of these names.
    ///
    /// # Errors
    ///
    /// The device refuses something; there is no such image.
    pub fn daemon_with(&self, dir: &Path, setup: &[Command], images: &[&str]) -> Result<Daemon> {
        let device = self.device()?;
        device.send(&Command::Dir(dir.to_owned()))?;
        for command in setup {
            device.send(command)?;
        }
        device.send(&Command::BindOnDemand)?;
        let mut daemon = Daemon::from_device(device);
        for name in images {
            daemon.images.push(self.images.get(name)?);
        }
        Ok(daemon)
    }

    /// A daemon with a new cache, that can serve the images of these names.
    ///
    /// # Errors
    ///
    /// The device refuses something; there is no such image.
    pub fn daemon(&self, images: &[&str]) -> Result<Daemon> {
        self.daemon_with(&self.new_dir()?, &[], images)
    }

    /// A new mount point.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn mount_point(&self) -> Result<PathBuf> {
        let mut mounts = self.mounts.borrow_mut();
        let dir = self.settings.work_dir.join(format!("m{}", mounts.len()));
        fs::create_dir_all(&dir)?;
        mounts.push(dir.clone());
        Ok(dir)
    }

    /// Begins to mount EROFS.
    ///
    /// # Errors
    ///
    /// No process could be started.
    pub fn mount(&self, options: &str, at: &Path) -> Result<Task> {
        Task::start(&["mount", options, &at.to_string_lossy()], Stdio::null())
    }

    /// Mounts an image that `daemon` serves meanwhile.
    ///
    /// # Errors
    ///
    /// The mount fails.
    pub fn mounted(&self, daemon: &mut Daemon, options: &str) -> Result<PathBuf> {
        let at = self.mount_point()?;
        let mut task = self.mount(options, &at)?;
        daemon
            .serve(&mut task)?
            .ok(&format!("mount -o {options}"))?;
        Ok(at)
    }

    /// Adds an image of this name to the daemon, and mounts it: the usual beginning.
    ///
    /// # Errors
    ///
    /// There is no such image; the mount fails.
    pub fn mounted_image(&self, name: &str) -> Result<(Daemon, Arc<Image>, PathBuf)> {
        let mut daemon = self.daemon(&[name])?;
        let image = Arc::clone(&daemon.images[0]);
        let at = self.mounted(&mut daemon, &format!("fsid={name}"))?;
        Ok((daemon, image, at))
    }

    /// Begins to unmount.
    ///
    /// # Errors
    ///
    /// No process could be started.
    pub fn unmount(&self, at: &Path) -> Result<Task> {
        Task::start(&["umount", &at.to_string_lossy()], Stdio::null())
    }

    /// Begins to read the file of a mounted image.
    ///
    /// # Errors
    ///
    /// No process could be started.
    pub fn reader(&self, at: &Path, offset: usize, len: usize) -> Result<Task> {
        let path = at.join(FILE);
        let (offset, len) = (offset.to_string(), len.to_string());
        Task::start(
            &["read", &path.to_string_lossy(), &offset, &len],
            Stdio::null(),
        )
    }

    /// As [`Context::reader`], without readahead: block by block.
    ///
    /// # Errors
    ///
    /// No process could be started.
    pub fn block_reader(&self, at: &Path, offset: usize, len: usize) -> Result<Task> {
        let path = at.join(FILE);
        let (offset, len) = (offset.to_string(), len.to_string());
        Task::start(
            &["read", &path.to_string_lossy(), &offset, &len, "random"],
            Stdio::null(),
        )
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // The devices of the test are closed by now: nothing waits for a daemon any more.
        for at in self.mounts.borrow().iter() {
            if let Ok(mut task) = self.unmount(at) {
                // Not mounted is as good.
                let _ = task.wait(SOON);
            }
        }
    }
}

/// Drops the page cache and what else can be dropped.
///
/// # Errors
///
/// `/proc` is not mounted.
pub fn drop_caches() -> Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop_caches")
}
