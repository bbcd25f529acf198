// SPDX-License-Identifier: GPL-2.0

//! Between the [`Errno`] of the pure files and the kernel crate's [`Error`].
//!
//! Upstream has no counterpart: the pure files are this module's.

use crate::errno::Errno;
use kernel::error::Error;

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error::from_errno(errno.to_raw())
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        // Every `Error` is a number that `Errno` takes too, so the default is never used.
        Errno::from_raw(error.to_errno()).unwrap_or(Errno::EIO)
    }
}
