// SPDX-License-Identifier: MIT OR Apache-2.0

//! The disk that the store is on: an ext4 on a loop device, which can be repaired.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use crate::harness::eventually;
use crate::harness::Context;
use crate::harness::SOON;

/// Its size in MiB; sparse, in memory.
const MEBIBYTES: u64 = 96;

/// A disk in a file.
#[derive(Debug)]
pub struct Disk {
    device: PathBuf,
    at: PathBuf,
}

/// Runs a program; what it has printed.
fn run(program: &str, arguments: &[&str], last: &[&Path], good: &[i32]) -> Result<String> {
    let output = Command::new(program).args(arguments).args(last).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = output.status.code();
    let is_good = status.is_some_and(|status| good.contains(&status));
    ensure!(is_good, "{program}: {status:?} {}", told.trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

impl Disk {
    /// Makes one, with a file system, and mounts it.
    ///
    /// # Errors
    ///
    /// There is no `mkfs.ext4` or no loop device.
    pub fn make(t: &Context, file: PathBuf) -> Result<Self> {
        File::create(&file)?.set_len(MEBIBYTES << 20)?;
        // Inodes for some thousand volumes, and tables that are not written later.
        let words =
            "-q -F -b 4096 -m 0 -J size=4 -N 12288 -E lazy_itable_init=0,lazy_journal_init=0";
        let words: Vec<&str> = words.split(' ').collect();
        run("mkfs.ext4", &words, &[&file], &[0])?;
        let found = run("losetup", &["--find", "--show"], &[&file], &[0])?;
        let disk = Disk {
            device: PathBuf::from(found),
            at: t.mount_point()?,
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        let options = Some(c"user_xattr");
        rustix::mount::mount(&self.device, &self.at, "ext4", MountFlags::NOATIME, options)
            .with_context(|| format!("mount {}", self.device.display()))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.at
    }

    /// The name of its block device, as `loop0`.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn device(&self) -> Result<&str> {
        let name = self.device.file_name().and_then(|name| name.to_str());
        name.context("a block device without a name")
    }

    /// Writes to the disk what it has in memory. Whatever it says: who wants to know asks
    /// [`Disk::can_be_written`].
    pub fn sync(&self) {
        if let Ok(dir) = File::open(&self.at) {
            let _ = rustix::fs::syncfs(dir);
        }
    }

    /// Whether the file system goes on: it does not after an error in its journal.
    #[must_use]
    pub fn can_be_written(&self) -> bool {
        let path = self.at.join("probe");
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(b"probe")?;
            file.sync_all()
        });
        written.is_ok() && fs::remove_file(&path).is_ok()
    }

    /// Unmounts it, has its journal replayed and its file system repaired, and mounts it again. Nobody
    /// may use it.
    ///
    /// # Errors
    ///
    /// It is in use; it cannot be repaired.
    pub fn repair(&self) -> Result<()> {
        self.unmount()?;
        // 1: errors were corrected.
        run("e2fsck", &["-f", "-y"], &[&self.device], &[0, 1])?;
        self.mount()
    }

    /// Unmounts it and mounts it again. Nobody may use it.
    ///
    /// # Errors
    ///
    /// It is in use.
    pub fn mount_again(&self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&self) -> Result<()> {
        // Who has used it last may still be giving it back.
        eventually("the disk is idle", SOON, || {
            Ok(rustix::mount::unmount(&self.at, UnmountFlags::empty()).is_ok())
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still uses it ends with the program.
        let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
        let _ = run("losetup", &["--detach"], &[&self.device], &[0]);
    }
}
