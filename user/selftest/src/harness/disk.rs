// SPDX-License-Identifier: MIT OR Apache-2.0

//! A small disk of the test's own: to be filled, frozen, or made read-only.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::fs::FallocateFlags;
use rustix::mount::UnmountFlags;

use super::check::skip;
use super::raw;
use super::Context;
use super::Task;

/// A file system, ext4 as a rule, on a loop device, mounted in the test's mount namespace, with which it goes.
#[derive(Debug)]
pub struct SmallDisk {
    /// Where it is mounted.
    pub dir: PathBuf,
    /// The loop device, if it does not go by itself.
    device: Option<String>,
}

/// What takes space on a [`SmallDisk`].
#[derive(Debug)]
pub struct Ballast<'a> {
    disk: &'a SmallDisk,
    file: File,
}

/// A frozen file system, until this is dropped.
#[derive(Debug)]
pub struct Frozen {
    dir: File,
    /// Thaws if this process cannot.
    _guard: Task,
    /// The guard's standard input: it ends with this process.
    _line: rustix::fd::OwnedFd,
}

/// How many files a [`SmallDisk`] can have, up to 257 directories of each volume among them: a test
/// that uses them up makes them one by one.
const FILES: &str = "3072";

impl SmallDisk {
    /// Makes and mounts one of so many MiB. Four are for the file system itself.
    ///
    /// # Errors
    ///
    /// Skips the test if there is no `mkfs.ext4` or no loop device.
    pub fn new(t: &Context, mebibytes: u64) -> Result<Self> {
        Self::mounted_with(t, mebibytes, "user_xattr")
    }

    /// The same, with options for `mount`.
    ///
    /// # Errors
    ///
    /// As [`SmallDisk::new`].
    pub fn mounted_with(t: &Context, mebibytes: u64, options: &str) -> Result<Self> {
        Self::of_image(t, &t.dir.join("disk"), mebibytes, options)
    }

    /// The same, in an image file of this name.
    ///
    /// # Errors
    ///
    /// As [`SmallDisk::new`].
    pub fn of_image(t: &Context, image: &Path, mebibytes: u64, options: &str) -> Result<Self> {
        let journal = ["-b", "4096", "-J", "size=4"];
        Self::ext4(t, image, mebibytes, &journal, &[], options)
    }

    /// One of 32 MiB, with these arguments for `mkfs.ext4` and, unless there are none, `tune2fs`.
    ///
    /// # Errors
    ///
    /// As [`SmallDisk::new`].
    pub fn made_with(t: &Context, mkfs: &[&str], tune: &[&str], options: &str) -> Result<Self> {
        let image = t.dir.join("made");
        // The one before is in use as long as it is mounted.
        let _ = std::fs::remove_file(&image);
        Self::ext4(t, &image, 32, mkfs, tune, options)
    }

    /// One whose sectors have so many bytes.
    ///
    /// # Errors
    ///
    /// As [`SmallDisk::new`].
    pub fn with_sectors(t: &Context, mebibytes: u64, bytes: u64) -> Result<Self> {
        let image = t.dir.join("sectors");
        File::create(&image)?.set_len(mebibytes << 20)?;
        let made = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &bytes.to_string()])
            .arg(&image)
            .output();
        let device = match made {
            Ok(output) if output.status.success() => String::from_utf8(output.stdout)?,
            _ => return skip(format!("no loop device with sectors of {bytes} bytes")),
        };
        let disk = SmallDisk {
            dir: t.mount_point()?,
            device: Some(device.trim().to_owned()),
        };
        for command in [
            vec![
                "mkfs.ext4",
                "-q",
                "-F",
                "-b",
                "4096",
                "-m",
                "0",
                device.trim(),
            ],
            vec!["mount", "-t", "ext4", device.trim()],
        ] {
            let mut program = Command::new(command[0]);
            program.args(&command[1..]);
            if command[0] == "mount" {
                program.arg(&disk.dir);
            }
            let done = program.status();
            ensure!(done.is_ok_and(|status| status.success()), "{command:?}");
        }
        Ok(disk)
    }

    /// One with blocks of so many bytes.
    ///
    /// # Errors
    ///
    /// As [`SmallDisk::new`].
    pub fn with_blocks(t: &Context, bytes: u32) -> Result<Self> {
        let arguments = ["-b", &bytes.to_string(), "-J", "size=4"];
        let image = t.dir.join("disk");
        Self::ext4(t, &image, 32, &arguments, &[], "user_xattr")
    }

    fn ext4(
        t: &Context,
        image: &Path,
        mebibytes: u64,
        arguments: &[&str],
        tune: &[&str],
        options: &str,
    ) -> Result<Self> {
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-m", "0"])
            .args(arguments)
            .args(["-N", FILES])
            .args(["-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        Self::made(t, "ext4", &mut mkfs, tune, image, mebibytes, options)
    }

    /// An XFS.
    ///
    /// # Errors
    ///
    /// Skips the test if there is no `mkfs.xfs`, or the kernel has none.
    pub fn xfs(t: &Context) -> Result<Self> {
        let mut mkfs = Command::new("mkfs.xfs");
        mkfs.args(["-q", "-f"]);
        Self::made(
            t,
            "xfs",
            &mut mkfs,
            &[],
            &t.new_dir()?.join("disk"),
            320,
            "rw",
        )
    }

    /// A Btrfs.
    ///
    /// # Errors
    ///
    /// Skips the test if there is no `mkfs.btrfs`, or the kernel has none.
    pub fn btrfs(t: &Context) -> Result<Self> {
        let mut mkfs = Command::new("mkfs.btrfs");
        mkfs.args(["-q", "-f"]);
        Self::made(t, "btrfs", &mut mkfs, &[], &t.dir.join("btrfs"), 256, "rw")
    }

    fn made(
        t: &Context,
        kind: &str,
        mkfs: &mut Command,
        tune: &[&str],
        image: &Path,
        mebibytes: u64,
        options: &str,
    ) -> Result<Self> {
        File::create(image)?.set_len(mebibytes << 20)?;
        let made = mkfs.arg(image).stdout(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            return skip(format!("no mkfs.{kind}"));
        }
        if !tune.is_empty() {
            let mut tune2fs = Command::new("tune2fs");
            let tuned = tune2fs.args(tune).arg(image).stdout(Stdio::null()).status();
            ensure!(
                tuned.is_ok_and(|status| status.success()),
                "tune2fs {tune:?}"
            );
        }
        let dir = t.mount_point()?;
        let mounted = Command::new("mount")
            .args(["-t", kind, "-o", &format!("loop,{options}")])
            .args([image, &dir])
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return skip(format!(
                "cannot mount {kind} with {options} through a loop device"
            ));
        }
        Ok(SmallDisk { dir, device: None })
    }

    /// A directory for a cache on it.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn cache_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.join("c");
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// The name of its block device, as `loop0`.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn block_device(&self) -> Result<String> {
        let device = rustix::fs::stat(&self.dir)?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
        let name = link.file_name().and_then(|name| name.to_str());
        Ok(name.context("a block device without a name")?.to_owned())
    }

    /// Mounts it anew with these options; whatever `mount` says.
    ///
    /// # Errors
    ///
    /// `mount` cannot be run.
    pub fn remount(&self, options: &str) -> Result<bool> {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.dir)
            .stderr(Stdio::null())
            .status()
            .context("mount")?;
        Ok(status.success())
    }

    /// Blocks that are available, and all blocks.
    fn blocks(&self) -> Result<(u64, u64)> {
        let space = rustix::fs::statvfs(&self.dir)?;
        Ok((space.f_bavail, space.f_blocks))
    }

    /// A file that takes no space yet.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn ballast(&self) -> Result<Ballast<'_>> {
        let file = File::create(self.dir.join("ballast"))?;
        Ok(Ballast { disk: self, file })
    }

    /// Freezes it. Somebody else thaws it if this process does not within 20 seconds.
    ///
    /// # Errors
    ///
    /// What `pipe` or `ioctl` says.
    pub fn freeze(&self) -> Result<Frozen> {
        let dir = File::open(&self.dir)?;
        let (ours, line) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let guard = Task::start(
            &["thaw-later", &self.dir.to_string_lossy()],
            Stdio::from(ours),
        )?;
        // The guard holds the directory open before there is something to thaw.
        super::eventually("the guard is ready", super::SOON, || {
            Ok(!guard.output()?.is_empty())
        })?;
        raw::freeze(&dir).context("FIFREEZE")?;
        Ok(Frozen {
            dir,
            _guard: guard,
            _line: line,
        })
    }
}

impl Ballast<'_> {
    /// Grows or shrinks until so many hundredths of the disk are available, less `blocks` blocks.
    ///
    /// # Errors
    ///
    /// The disk does not come near that.
    pub fn leave(&self, percent: u64, blocks: u64) -> Result<()> {
        const BLOCK: u64 = 4096;
        /// The tree of the file's extents may take or give a block.
        const NEAR: u64 = 2;
        for _ in 0..20 {
            let (available, all) = self.disk.blocks()?;
            let wanted = all / 100 * percent - blocks;
            if available.abs_diff(wanted) <= NEAR {
                return Ok(());
            }
            let len = self.file.metadata()?.len();
            if available > wanted {
                let more = (available - wanted) * BLOCK;
                rustix::fs::fallocate(&self.file, FallocateFlags::empty(), len, more)?;
            } else {
                let less = (wanted - available) * BLOCK;
                ensure!(less <= len, "the ballast is too small for {percent} %");
                self.file.set_len(len - less)?;
            }
            self.file.sync_all()?;
        }
        anyhow::bail!("{percent} % cannot be reached")
    }

    /// Takes no space any more.
    ///
    /// # Errors
    ///
    /// What `ftruncate` says.
    pub fn clear(&self) -> Result<()> {
        self.file.set_len(0)?;
        Ok(self.file.sync_all()?)
    }
}

impl Frozen {
    /// Thaws it, and says whether it was frozen until now.
    ///
    /// # Errors
    ///
    /// The guard has thawed it before, since this took too long.
    pub fn thaw(self) -> Result<()> {
        raw::thaw(&self.dir).context("FITHAW")
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Thawed twice is thawed.
        let _ = raw::thaw(&self.dir);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What still uses it ends with the test.
        let _ = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
        if let Some(device) = &self.device {
            // It goes with its last user.
            let _ = Command::new("losetup").args(["--detach", device]).status();
        }
    }
}

/// The data of a file from `offset` on.
///
/// # Errors
///
/// What `open` or `pread` says.
pub fn read_at(path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut data = vec![0; len];
    File::open(path)?.read_exact_at(&mut data, offset)?;
    Ok(data)
}
