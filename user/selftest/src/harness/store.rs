// SPDX-License-Identifier: MIT OR Apache-2.0

//! Looking at a cache's store on disk, where no daemon would.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command as Program;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use ondemand_core::layout;
use rustix::fs::IFlags;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::skip;
use super::wait::eventually;
use super::wait::SOON;
use super::Context;
use super::Daemon;

/// The attribute that says what a file of the store holds.
pub const ATTRIBUTE: &str = "user.CacheFiles.cache";

/// Where an object lies below the directory of a cache.
///
/// # Errors
///
/// A key without a name.
pub fn object_file(dir: &Path, volume: &str, key: &str) -> Result<PathBuf> {
    let path = layout::object_path(volume.as_bytes(), key.as_bytes())
        .map_err(|errno| anyhow::anyhow!("no path for {key}: {errno:?}"))?;
    let part = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    Ok(dir
        .join("cache")
        .join(part(path.volume.as_bytes()))
        .join(part(&path.fanout))
        .join(part(path.file.as_bytes())))
}

/// The directory of a file.
///
/// # Errors
///
/// The root has none.
pub fn parent(path: &Path) -> Result<&Path> {
    path.parent().context("no directory above")
}

/// Bytes of a file that are in the page cache. To ask brings nothing there.
///
/// `preadv2` with `RWF_NOWAIT` is no way to ask: what it does not find it reads ahead.
///
/// # Errors
///
/// There is no such file. Without the program `fincore` the test is skipped.
pub fn in_memory(path: &Path) -> Result<u64> {
    let Ok(output) = Program::new("fincore")
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(path)
        .output()
    else {
        return skip("no fincore");
    };
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().with_context(|| format!("{text:?}"))
}

/// Mounts, reads all, unmounts; returns what was read.
///
/// # Errors
///
/// One of the three fails.
pub fn read_once(t: &Context, daemon: &mut Daemon, options: &str) -> Result<Vec<u8>> {
    let at = t.mounted(daemon, options)?;
    let mut reader = t.reader(&at, 0, 4 << 20)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    Ok(data)
}

/// Waits until something is so that the kernel does by itself; messages are answered meanwhile.
///
/// # Errors
///
/// It is not so within [`SOON`].
pub fn served_until(
    daemon: &mut Daemon,
    what: &str,
    mut condition: impl FnMut(&Daemon) -> Result<bool>,
) -> Result<()> {
    eventually(what, SOON, || {
        while let Some(message) = daemon.read()? {
            daemon.answer(message)?;
        }
        condition(daemon)
    })
}

/// Waits until an object that was unmounted is in its place.
///
/// # Errors
///
/// It is not there within [`SOON`].
pub fn eventually_exists(file: &Path, daemon: &mut Daemon) -> Result<()> {
    let what = format!("{} exists", file.display());
    served_until(daemon, &what, |_| Ok(file.exists()))
}

/// Waits until nothing uses the entry `name` of the current directory.
///
/// # Errors
///
/// It is in use after [`SOON`].
pub fn eventually_idle(name: &str, daemon: &mut Daemon) -> Result<()> {
    served_until(daemon, &format!("{name} is idle"), |daemon| {
        Ok(daemon.command(&format!("inuse {name}")).is_ok())
    })
}

/// The only entry of a cache's graveyard.
///
/// # Errors
///
/// There is none, or more than one, or its name is no grave's: 16 hexadecimal digits.
pub fn grave(dir: &Path) -> Result<PathBuf> {
    let graves = std::fs::read_dir(dir.join("graveyard"))?;
    let graves = graves.collect::<std::io::Result<Vec<_>>>()?;
    ensure!(graves.len() == 1, "{} graves", graves.len());
    let name = graves[0].file_name();
    let name = name.to_str().context("a grave with a strange name")?;
    let digits = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    ensure!(
        name.len() == 16 && name.bytes().all(digits),
        "a grave called {name}"
    );
    Ok(graves[0].path())
}

/// Changes the attribute of a file or volume into one of the same form that another image or an
/// older volume would have.
///
/// # Errors
///
/// It has no attribute.
pub fn make_stale(path: &Path) -> Result<()> {
    let what = || format!("attribute of {}", path.display());
    let mut value = [0; 64];
    let len = rustix::fs::getxattr(path, ATTRIBUTE, &mut value).with_context(what)?;
    value[0] ^= 0xff;
    rustix::fs::setxattr(path, ATTRIBUTE, &value[..len], XattrFlags::REPLACE).with_context(what)
}

/// A file or directory that cannot be changed, until this is dropped.
#[derive(Debug)]
pub struct Immutable(File);

impl Immutable {
    /// Sets the flag, as `chattr +i` does.
    ///
    /// # Errors
    ///
    /// What `open` or `ioctl` says.
    pub fn new(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        set_immutable(&file, true).context("chattr +i")?;
        Ok(Immutable(file))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        // Nothing but the next attempt to remove the file would tell.
        let _ = set_immutable(&self.0, false);
    }
}

fn set_immutable(file: &File, immutable: bool) -> Result<(), Errno> {
    let mut flags = rustix::fs::ioctl_getflags(file)?;
    flags.set(IFlags::IMMUTABLE, immutable);
    rustix::fs::ioctl_setflags(file, flags)
}
