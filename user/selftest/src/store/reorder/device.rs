// SPDX-License-Identifier: MIT OR Apache-2.0

//! The disk that is recorded, and how it and what is replayed are mounted.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command as Program;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use super::log;
use crate::harness::eventually;
use crate::harness::image::Aligned;
use crate::harness::SOON;

/// The last page of the disk is for marks.
const PAGE: u64 = 4096;

/// Mounts a file system of one of the two kinds; its journal is written every five seconds.
///
/// # Errors
///
/// What `mount` says.
pub fn mount(disk: &Path, at: &Path, file_system: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    let options = match file_system {
        "ext4" => c"commit=5",
        _ => {
            fs::write("/proc/sys/fs/xfs/xfssyncd_centisecs", "500").context("no XFS here")?;
            c""
        }
    };
    rustix::mount::mount(disk, at, file_system, MountFlags::NOATIME, options)
        .with_context(|| format!("mount {} as {file_system}", disk.display()))
}

/// Unmounts it, once the cache has let go of it.
///
/// # Errors
///
/// It is still in use at the deadline.
pub fn unmount(at: &Path) -> Result<()> {
    eventually(
        &format!("{} is unmounted", at.display()),
        SOON,
        || match rustix::mount::unmount(at, UnmountFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::BUSY) => Ok(false),
            Err(errno) => Err(errno.into()),
        },
    )
}

/// A disk whose writes are logged.
#[derive(Debug)]
pub struct Recorded {
    path: PathBuf,
    device: File,
    /// Its size.
    pub bytes: u64,
}

impl Recorded {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// It is no disk, or has no volatile cache.
    pub fn new(path: &Path) -> Result<Self> {
        let name = path.file_name().context("no device")?.to_string_lossy();
        let attribute = |file: &str| {
            let file = format!("/sys/class/block/{name}/{file}");
            fs::read_to_string(&file).context(file)
        };
        let cache = attribute("queue/write_cache")?;
        ensure!(
            cache.trim() == "write back",
            "the disk has no volatile cache, nothing is flushed: {cache}"
        );
        let device = File::options()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .with_context(|| path.display().to_string())?;
        Ok(Recorded {
            path: path.to_owned(),
            device,
            bytes: attribute("size")?.trim().parse::<u64>()? * 512,
        })
    }

    /// Makes a file system on all of it but the last page, which is for marks.
    ///
    /// # Errors
    ///
    /// There is no `mkfs`, or it fails.
    pub fn format(&self, file_system: &str) -> Result<()> {
        let bytes = self.bytes - PAGE;
        let mut mkfs = Program::new(format!("mkfs.{file_system}"));
        if file_system == "ext4" {
            mkfs.args([
                "-q", "-F", "-b", "4096", "-J", "size=4", "-N", "1024", "-m", "0",
            ])
            .args(["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"])
            .arg(&self.path)
            .arg(format!("{}k", bytes >> 10));
        } else {
            mkfs.args(["-q", "-f", "-K", "-d", &format!("size={bytes}")])
                .arg(&self.path);
        }
        let output = mkfs.output().with_context(|| format!("{mkfs:?}"))?;
        ensure!(
            output.status.success(),
            "{mkfs:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Notes something in the log.
    ///
    /// # Errors
    ///
    /// What `pwrite` says.
    pub fn mark(&self, text: &str) -> Result<()> {
        let page = Aligned::new(&log::mark(text));
        Ok(self.device.write_all_at(page.get(), self.bytes - PAGE)?)
    }
}
