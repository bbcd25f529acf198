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
use rustix::mount::UnmountFlags;

use crate::harness::eventually;
use crate::harness::Context;
use crate::harness::SOON;

/// Its size in MiB; sparse, in memory.
const MEBIBYTES: u64 = 96;

/// A disk in a file.
#[derive(Debug)]
pub struct Disk {
    file: PathBuf,
    at: PathBuf,
}

fn run(program: &str, arguments: &[&str], last: &[&Path], good: &[i32]) -> Result<()> {
    let output = Command::new(program).args(arguments).args(last).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = output.status.code();
    let is_good = status.is_some_and(|status| good.contains(&status));
    ensure!(is_good, "{program}: {status:?} {}", told.trim());
    Ok(())
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
        let disk = Disk {
            file,
            at: t.mount_point()?,
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        let words = ["-t", "ext4", "-o", "loop,user_xattr,noatime"];
        run("mount", &words, &[&self.file, &self.at], &[0])
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
    /// It is not mounted.
    pub fn device(&self) -> Result<String> {
        let number = rustix::fs::stat(&self.at)?.st_dev;
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let device = fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
        let name = device.file_name().and_then(|name| name.to_str());
        Ok(name.context("a block device without a name")?.to_owned())
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
        // Who has used it last may still be giving it back.
        eventually("the disk is idle", SOON, || {
            Ok(rustix::mount::unmount(&self.at, UnmountFlags::empty()).is_ok())
        })?;
        // 1: errors were corrected.
        run("e2fsck", &["-f", "-y"], &[&self.file], &[0, 1])?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still uses it ends with the program.
        let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
    }
}
