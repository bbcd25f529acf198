// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two modules, of which one is loaded at a time.

use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use rustix::fs::OFlags;

use crate::machine::name;

/// How long the last users of a module may take to leave it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A module's file, in memory.
pub(crate) struct Module {
    file: PathBuf,
}

/// A module that is loaded; [`Loaded::unload`] ends that.
#[must_use]
pub(crate) struct Loaded {
    name: CString,
}

impl Module {
    /// A copy of `file` in `dir`.
    ///
    /// # Errors
    ///
    /// It cannot be copied.
    pub(crate) fn copy(file: &Path, dir: &Path) -> Result<Self> {
        let copy = dir.join(file.file_name().context("a module is a file")?);
        fs::copy(file, &copy).with_context(|| format!("copying {}", file.display()))?;
        Ok(Module { file: copy })
    }

    /// Loads it.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub(crate) fn load(&self) -> Result<Loaded> {
        let file = File::open(&self.file)?;
        rustix::system::finit_module(&file, c"", 0)
            .with_context(|| format!("loading {}", self.file.display()))?;
        Ok(Loaded {
            name: CString::new(name(&self.file))?,
        })
    }
}

impl Loaded {
    /// Unloads it, as soon as nobody uses it any more.
    ///
    /// # Errors
    ///
    /// Somebody still does after a while.
    pub(crate) fn unload(self) -> Result<()> {
        let begun = Instant::now();
        let flags = i32::try_from(OFlags::NONBLOCK.bits())?;
        loop {
            match rustix::system::delete_module(&self.name, flags) {
                Ok(()) => return Ok(()),
                Err(_) if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
                Err(errno) => {
                    return Err(errno)
                        .with_context(|| format!("unloading {}", self.name.to_string_lossy()))
                }
            }
        }
    }
}
