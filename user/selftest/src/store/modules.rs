// SPDX-License-Identifier: MIT OR Apache-2.0

//! One backend after the other: both claim `/dev/cachefiles`, so only one can be loaded.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;

use crate::harness::eventually;
use crate::harness::SOON;

/// A backend that is loaded; dropping it unloads it.
#[derive(Debug)]
pub struct Module {
    name: String,
}

impl Module {
    /// Inserts a module, and waits for its device.
    ///
    /// # Errors
    ///
    /// `insmod` says no; there is no device at the deadline.
    pub fn load(file: &Path, device: &Path) -> Result<Self> {
        let name = file.file_stem().context("no module file")?;
        let name = name.to_string_lossy().replace('-', "_");
        run("insmod", file)?;
        let module = Module { name };
        eventually("the device is there", SOON, || Ok(device.exists()))?;
        Ok(module)
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// It is still in use at the deadline.
    pub fn unload(self) -> Result<()> {
        let name = PathBuf::from(&self.name);
        let mut last = None;
        let done = eventually("the module can be removed", SOON, || {
            last = run("rmmod", &name).err();
            Ok(last.is_none())
        });
        std::mem::forget(self);
        match last {
            Some(error) => done.context(format!("{error:#}")),
            None => done,
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // After a failed step: whoever needs the other module will say that it is still there.
        let _ = run("rmmod", Path::new(&self.name));
    }
}

fn run(program: &str, argument: &Path) -> Result<()> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        argument.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
