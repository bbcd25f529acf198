// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waiting, always with a deadline.

use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Result;
use rustix::event::poll;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fd::AsFd;
use rustix::io::Errno;

/// The deadline of everything that should happen at once. Generous: the virtual machine may be an
/// emulated one with a debug kernel in it.
pub const SOON: Duration = Duration::from_secs(15);

/// How often [`eventually`] looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits for a state of the system that sends no event, by looking at it again and again.
///
/// # Errors
///
/// The state was not reached within `deadline`; whatever `condition` fails with.
pub fn eventually(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + deadline;
    while !condition()? {
        ensure!(
            Instant::now() < end,
            "not within {} s: {what}",
            deadline.as_secs()
        );
        std::thread::park_timeout(PAUSE);
    }
    Ok(())
}

/// Waits until one of `fds` is readable; says which ones are. Nothing is readable at the deadline.
///
/// # Errors
///
/// What `poll` says.
pub fn readable<const N: usize>(
    fds: [&dyn AsFdDyn; N],
    deadline: Duration,
) -> Result<[bool; N], Errno> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd.as_fd_dyn(), PollFlags::IN));
    let end = Instant::now() + deadline;
    loop {
        let rest = Timespec::try_from(end.saturating_duration_since(Instant::now()))
            .map_err(|_| Errno::INVAL)?;
        match poll(&mut polled, Some(&rest)) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(polled.map(|fd| !fd.revents().is_empty())),
        }
    }
}

/// [`AsFd`] behind a reference, so that different kinds of files can be waited for together.
pub trait AsFdDyn {
    /// [`AsFd::as_fd`]
    fn as_fd_dyn(&self) -> rustix::fd::BorrowedFd<'_>;
}

impl<T: AsFd> AsFdDyn for T {
    fn as_fd_dyn(&self) -> rustix::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}
