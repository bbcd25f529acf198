// SPDX-License-Identifier: MIT OR Apache-2.0

//! One backend after the other: both claim `/dev/cachefiles`, so only one can be loaded.

use std::ffi::OsStr;
use std::path::Path;
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
        // The file may be called otherwise.
        let name = run(
            "modinfo",
            &[OsStr::new("-F"), OsStr::new("name"), file.as_os_str()],
        )?;
        run("insmod", &[file.as_os_str()])?;
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
        let mut last = None;
        let done = eventually("the module can be removed", SOON, || {
            last = run("rmmod", &[OsStr::new(&self.name)]).err();
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
        let _ = run("rmmod", &[OsStr::new(&self.name)]);
    }
}

/// Runs a program; returns the line that it printed.
fn run(program: &str, arguments: &[&OsStr]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
