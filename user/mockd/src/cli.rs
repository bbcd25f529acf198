// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line.

use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use clap::Args;
use clap::Parser;
use rustix::io::FdFlags;

use crate::image::Directory;
use crate::namespace;
use crate::say;
use crate::Mock;
use crate::Script;

/// A daemon for /dev/cachefiles that does wrong what a script tells it, and the rest well.
///
/// Each wrong thing is a line on the standard output.
#[derive(Debug, Parser)]
#[command(name = "mockd", version)]
pub struct Options {
    #[command(flatten)]
    device: DeviceOptions,
    #[command(flatten)]
    script: ScriptOptions,
    /// The directory of images: a cookie key is the name of a file in it
    #[arg(long)]
    images: PathBuf,
    /// End by itself after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Say what is answered well, too
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct DeviceOptions {
    /// The device is this inherited descriptor, and is bound already
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(0..))]
    device_fd: Option<RawFd>,
    /// Open the device and bind this cache directory
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ScriptOptions {
    /// The script: a TOML file
    script: Option<PathBuf>,
    /// The script itself; "" is a daemon without faults
    #[arg(long, value_name = "TOML")]
    text: Option<String>,
    /// A random script; it is printed
    #[arg(long, value_name = "SEED")]
    chaos: Option<u64>,
}

impl ScriptOptions {
    fn read(&self) -> Result<Script> {
        if let Some(seed) = self.chaos {
            return Ok(Script::random(seed));
        }
        if let Some(text) = &self.text {
            return Script::parse(text).context("--text");
        }
        // clap has seen to it that there is one of the three.
        let path = self.script.as_deref().unwrap_or(Path::new(""));
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Script::parse(&text).with_context(|| path.display().to_string())
    }
}

impl Options {
    /// Runs the daemon.
    ///
    /// # Errors
    ///
    /// A script that is none; a device that is none, cannot be opened or bound; what
    /// [`Mock::serve`] ends with.
    pub fn run(self) -> Result<()> {
        let mut script = self.script.read()?;
        let seed = *script.seed.get_or_insert_with(|| fastrand::u64(..));
        say!("process {}, seed {seed}", std::process::id());
        if self.script.chaos.is_some() {
            for line in script.to_toml()?.lines() {
                say!("script: {line}");
            }
        }
        if script.mount_namespace {
            namespace::private_mounts().context("a mount namespace of its own")?;
            let name = std::fs::read_link("/proc/self/ns/mnt")?;
            say!("mount namespace {}", name.display());
        }
        let device = self.device.open()?;
        let images = Directory::new(self.images);
        let end = self.seconds.map(Duration::from_secs);
        Mock::new(device, images, script, seed, self.verbose).serve(end)
    }
}

impl DeviceOptions {
    fn open(self) -> Result<Device> {
        if let Some(dir) = self.cache {
            let device = Device::open(Device::DEFAULT_PATH)?;
            device.send(&Command::Dir(dir))?;
            device.send(&Command::BindOnDemand)?;
            return Ok(device);
        }
        let number = self.device_fd.unwrap_or_default();
        // SAFETY: The number is looked at only; what is not open is an error.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).context("--device-fd")?;
        // SAFETY: It is open, and whoever has started this program has said that it is the device,
        // for this program to own; nothing here has opened or used it yet.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        Device::from_owned_fd(fd).context("--device-fd")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(arguments.split(' '))
    }

    #[test]
    fn one_device_and_one_script() {
        use clap::error::ErrorKind;
        for (arguments, error) in [
            ("mockd --images i s", ErrorKind::MissingRequiredArgument),
            (
                "mockd --images i --device-fd 0",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "mockd --images i --device-fd 0 --cache c s",
                ErrorKind::ArgumentConflict,
            ),
            (
                "mockd --images i --cache c s --chaos 3",
                ErrorKind::ArgumentConflict,
            ),
            ("mockd --cache c s", ErrorKind::MissingRequiredArgument),
        ] {
            assert_eq!(parse(arguments).unwrap_err().kind(), error, "{arguments}");
        }
        let options = parse("mockd --images i --device-fd 0 --chaos 3").unwrap();
        assert_eq!(options.script.read().unwrap(), Script::random(3));
    }

    #[test]
    fn a_script_that_is_missing_names_itself() {
        let options = parse("mockd --images i --device-fd 0 /nonexistent").unwrap();
        let error = format!("{:#}", options.script.read().unwrap_err());
        assert!(error.starts_with("/nonexistent: "), "{error}");
    }
}
