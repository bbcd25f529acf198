// SPDX-License-Identifier: MIT OR Apache-2.0

//! Comparing what the kernel said with what it should have said.

use std::fmt;

use anyhow::bail;
use anyhow::Result;
use rustix::io::Errno;

/// The test cannot run here; the text says what is missing.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends the test as skipped.
///
/// # Errors
///
/// Always: a [`Skip`].
pub fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(Skip(reason.into()).into())
}

/// What a system call behind `cachefiles_proto` said: `None` for success.
///
/// # Errors
///
/// An error that did not come from a system call, such as a message that is none.
pub fn errno_of<T>(result: cachefiles_proto::Result<T>) -> Result<Option<Errno>> {
    match result {
        Ok(_) => Ok(None),
        Err(error) => match error.errno() {
            Some(errno) => Ok(Some(errno)),
            None => Err(error.into()),
        },
    }
}

/// Fails unless the call failed with one of `wanted`.
///
/// # Errors
///
/// The call succeeded, or failed otherwise.
pub fn expect_errno<T>(
    what: impl fmt::Display,
    result: std::result::Result<T, Errno>,
    wanted: &[Errno],
) -> Result<()> {
    match result {
        Ok(_) => bail!("{what}: succeeded, should have failed: {}", list(wanted)),
        Err(errno) if wanted.contains(&errno) => Ok(()),
        Err(errno) => bail!("{what}: {errno}, should have been: {}", list(wanted)),
    }
}

/// Several errors in words.
#[must_use]
pub fn list(errors: &[Errno]) -> String {
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    words.join(" or ")
}

/// Fails unless what was read is what the image holds.
///
/// # Errors
///
/// Length or contents differ; the message says where.
pub fn same(what: &str, got: &[u8], wanted: &[u8]) -> Result<()> {
    // All at once: byte by byte, not optimised and emulated, it was a quarter of what the tests took.
    if got == wanted {
        return Ok(());
    }
    if let Some(at) = got.iter().zip(wanted).position(|(a, b)| a != b) {
        let zeros = got[at..].iter().take_while(|byte| **byte == 0).count();
        bail!("{what}: wrong data from byte {at} on, {zeros} zeros there");
    }
    if got.len() != wanted.len() {
        bail!("{what}: {} bytes instead of {}", got.len(), wanted.len());
    }
    Ok(())
}

/// The errors that a mount may fail with when its OPEN fails: the interface carries nothing finer.
pub const MOUNT_FAILS: &[Errno] = &[Errno::IO, Errno::NOBUFS];
