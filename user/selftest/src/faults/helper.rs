// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the processes do that a sweep starts, besides the helpers of the harness. Several steps are one
//! process: to start one is much of what a run takes.
//!
//! - `visit OPTIONS DIR LENGTH`: mounts EROFS, prints so much of its file, and unmounts it
//! - `leave DIR LENGTH`: the same with what is mounted
//! - `reread PATH OFFSET LENGTH`: prints it, as it is in the store and not in memory

use std::ffi::CString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use rustix::fs::Advice;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use crate::harness::helper;
use crate::harness::image::FILE;

/// Runs a helper: one of these, or one of the harness.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["visit", options, dir, length] => visit(options, dir, length),
        ["leave", dir, length] => leave(dir, length),
        ["reread", path, offset, length] => reread(path, offset, length),
        _ => return helper::main(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<Errno>() {
                Some(errno) => eprintln!("errno {}", errno.raw_os_error()),
                None => eprintln!("{error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn visit(options: &str, dir: &str, length: &str) -> Result<()> {
    let options = CString::new(options)?;
    rustix::mount::mount("none", dir, "erofs", MountFlags::RDONLY, options.as_c_str())?;
    leave(dir, length)
}

fn leave(dir: &str, length: &str) -> Result<()> {
    let read = print(
        &Path::new(dir).join(FILE),
        0,
        length.parse()?,
        Advice::Normal,
    );
    rustix::mount::unmount(dir, UnmountFlags::empty())?;
    read
}

fn reread(path: &str, offset: &str, length: &str) -> Result<()> {
    print(
        Path::new(path),
        offset.parse()?,
        length.parse()?,
        Advice::Random,
    )
}

/// Prints a part of a file; with [`Advice::Random`] nothing else of it is read, and it is not taken from
/// memory.
fn print(path: &Path, offset: u64, length: usize, advice: Advice) -> Result<()> {
    let file = File::open(path).map_err(errno)?;
    rustix::fs::fadvise(&file, 0, None, advice)?;
    if advice == Advice::Random {
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    let mut data = vec![0; length];
    file.read_exact_at(&mut data, offset).map_err(errno)?;
    Ok(std::io::stdout().write_all(&data)?)
}

fn errno(error: std::io::Error) -> anyhow::Error {
    match Errno::from_io_error(&error) {
        Some(errno) => errno.into(),
        None => error.into(),
    }
}
