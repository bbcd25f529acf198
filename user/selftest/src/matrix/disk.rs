// SPDX-License-Identifier: MIT OR Apache-2.0

//! A disk that fails when it is told to: the machine's own, below the device mapper.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::mount::UnmountFlags;

use super::variants::Variant;
use crate::harness::eventually;
use crate::harness::SOON;

/// Sectors of 512 bytes that a file system gets: 1 GiB. XFS takes no less than 300 MiB.
const SECTORS: u64 = 1 << 21;

/// What the device mapper calls it.
const NAME: &str = "ondemand-matrix";

/// A disk that can fail.
#[derive(Debug)]
pub struct Disk {
    below: PathBuf,
    at: PathBuf,
}

/// Runs a program.
///
/// # Errors
///
/// It ends with another status than one of `good`; the message is what it said.
fn run(program: &str, arguments: &[&str], last: &[&Path], good: &[i32]) -> Result<()> {
    let output = Command::new(program).args(arguments).args(last).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // What follows is how it is used.
    let said = said.lines().next().unwrap_or_default();
    let status = output.status.code();
    let is_good = status.is_some_and(|status| good.contains(&status));
    ensure!(is_good, "{program} {arguments:?}: {status:?} {}", said);
    Ok(())
}

/// The block device that is mounted at `at`.
///
/// # Errors
///
/// There is none.
pub fn device_of(at: &Path) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().rev().find_map(|line| {
        let mut words = line.split(' ');
        let device = words.next()?;
        (words.next()? == at.to_str()?).then(|| PathBuf::from(device))
    });
    found.with_context(|| format!("nothing is mounted at {}", at.display()))
}

impl Disk {
    /// Takes over the disk `below`, which nobody uses; file systems are mounted at `at`.
    ///
    /// # Errors
    ///
    /// There is no device mapper, or no `dmsetup`.
    pub fn new(below: PathBuf, at: PathBuf) -> Result<Self> {
        fs::create_dir_all(&at)?;
        let disk = Disk { below, at };
        disk.dmsetup(&["create", NAME, "--table", &disk.table(false)])?;
        Ok(disk)
    }

    fn dmsetup(&self, arguments: &[&str]) -> Result<()> {
        // No udev is there that would have to be waited for.
        run(
            "dmsetup",
            &[&["--noudevsync", "--noudevrules"], arguments].concat(),
            &[],
            &[0],
        )
    }

    fn table(&self, fails: bool) -> String {
        let below = self.below.display();
        if fails {
            format!("0 {SECTORS} flakey {below} 0 0 86400 1 error_writes")
        } else {
            format!("0 {SECTORS} linear {below} 0")
        }
    }

    /// The block device, by the name that the kernel gives it: there is no udev to make another one.
    fn device(&self) -> Result<PathBuf> {
        for entry in fs::read_dir("/sys/block")? {
            let entry = entry?;
            let name = fs::read_to_string(entry.path().join("dm/name")).unwrap_or_default();
            if name.trim() == NAME {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        anyhow::bail!("the device mapper has no {NAME}")
    }

    /// From now on each write fails, or no one does any more.
    ///
    /// # Errors
    ///
    /// The device mapper refuses it.
    pub fn fail_writes(&self, fails: bool) -> Result<()> {
        self.dmsetup(&["reload", NAME, "--table", &self.table(fails)])?;
        // What the file system has not written yet is to fail, too.
        self.dmsetup(&["suspend", "--noflush", "--nolockfs", NAME])?;
        self.dmsetup(&["resume", NAME])
    }

    /// Makes a file system, mounts it, and makes the directory for a cache.
    ///
    /// # Errors
    ///
    /// There is no such program; the kernel does not have it.
    pub fn make(&self, variant: &Variant) -> Result<PathBuf> {
        let mkfs = format!("mkfs.{}", variant.kind);
        run(&mkfs, &variant.mkfs_arguments(), &[&self.device()?], &[0])?;
        self.mount(variant)?;
        let dir = self.cache_dir();
        fs::create_dir(&dir)?;
        if variant.ignores_case {
            run("chattr", &["+F"], &[&dir], &[0])?;
        }
        Ok(dir)
    }

    /// The directory for a cache.
    #[must_use]
    pub fn cache_dir(&self) -> PathBuf {
        self.at.join("cache")
    }

    fn mount(&self, variant: &Variant) -> Result<()> {
        let words = ["-t", variant.kind, "-o", variant.options];
        run("mount", &words, &[&self.device()?, &self.at], &[0])
    }

    /// Unmounts it. Nobody may use it.
    ///
    /// # Errors
    ///
    /// It is in use.
    pub fn unmount(&self) -> Result<()> {
        // Who has used it last may still be giving it back.
        eventually("the disk is idle", SOON, || {
            Ok(rustix::mount::unmount(&self.at, UnmountFlags::empty()).is_ok())
        })
    }

    /// Repairs what a failed disk has left, and mounts it again.
    ///
    /// # Errors
    ///
    /// It cannot be repaired.
    pub fn repair(&self, variant: &Variant) -> Result<()> {
        if let Some((command, good)) = variant.repair() {
            run(command[0], &command[1..], &[&self.device()?], good)?;
        }
        self.mount(variant)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
        let _ = self.dmsetup(&["remove", "--deferred", NAME]);
    }
}
