// SPDX-License-Identifier: MIT OR Apache-2.0

//! EROFS, mounted over fscache or from a file.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use rustix::mount::mount;
use rustix::mount::mount_change;
use rustix::mount::unmount;
use rustix::mount::MountFlags;
use rustix::mount::MountPropagationFlags;
use rustix::mount::UnmountFlags;
use rustix::thread::UnshareFlags;

use crate::image::FILE;

/// A mounted image; it is unmounted with this.
#[derive(Debug)]
pub(crate) struct Mounted {
    dir: PathBuf,
    mounted: bool,
}

impl Mounted {
    /// Mounts an image at a new place in `under`; `options` are those of EROFS over fscache.
    ///
    /// # Errors
    ///
    /// What `mount` says.
    pub(crate) fn over_fscache(under: &Path, options: &str) -> Result<Self> {
        let dir = new_place(under)?;
        let data = CString::new(options)?;
        mount("none", &dir, "erofs", MountFlags::RDONLY, data.as_c_str())
            .with_context(|| format!("mount -t erofs -o {options}"))?;
        Ok(Mounted { dir, mounted: true })
    }

    /// Mounts an image that is a file, without fscache.
    ///
    /// # Errors
    ///
    /// What `mount` says.
    pub(crate) fn file(under: &Path, image: &Path) -> Result<Self> {
        let dir = new_place(under)?;
        let none = c"";
        mount(image, &dir, "erofs", MountFlags::RDONLY, none)
            .with_context(|| format!("mount -t erofs {}", image.display()))?;
        Ok(Mounted { dir, mounted: true })
    }

    /// The file in the image.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Unmounts it.
    ///
    /// # Errors
    ///
    /// What `umount` says.
    pub(crate) fn unmount(mut self) -> Result<()> {
        self.mounted = false;
        unmount(&self.dir, UnmountFlags::empty()).context("umount")?;
        Ok(fs::remove_dir(&self.dir)?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted && unmount(&self.dir, UnmountFlags::empty()).is_ok() {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn new_place(under: &Path) -> Result<PathBuf> {
    for number in 0.. {
        let dir = under.join(format!("mnt{number}"));
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => {
                other.with_context(|| format!("mkdir {}", dir.display()))?;
                return Ok(dir);
            }
        }
    }
    unreachable!("there are more numbers than directories")
}

/// From now on, what this process mounts goes with it.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn mounts_of_our_own() -> Result<()> {
    // SAFETY: Only the mounts are unshared, no descriptor changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.context("unshare")?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).context("private mounts")
}
