// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waiting, always with a deadline, which follows the speed of the machine.

use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Result;
use ondemand_deadline::overdue;
use ondemand_deadline::Deadline;
use rustix::event::poll;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fd::AsFd;
use rustix::io::Errno;

/// The deadline of everything that should happen at once, on the reference machine. Generous: the
/// virtual machine may be an emulated one with a debug kernel in it.
pub const SOON: Duration = Duration::from_secs(15);

/// How often [`eventually`] looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits for a state of the system that sends no event, by looking at it again and again.
///
/// # Errors
///
/// The state was not reached within `deadline`, as long as that is on this machine; whatever
/// `condition` fails with.
pub fn eventually(
    what: &str,
    deadline: Duration,
    condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, &mut Deadline::after(deadline), condition)
}

/// The same with a deadline that others wait for as well.
///
/// # Errors
///
/// As [`eventually`].
pub fn until(
    what: &str,
    deadline: &mut Deadline,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    loop {
        // In this order: what happened in time is seen, however late this process runs again.
        let passed = deadline.passed();
        if condition()? {
            return Ok(());
        }
        ensure!(!passed, "not within {deadline}: {what}");
        std::thread::park_timeout(PAUSE);
    }
}

/// Waits until one of `fds` is readable; says which ones are. Nothing is readable at the deadline.
///
/// # Errors
///
/// What `poll` says.
pub fn readable<const N: usize>(
    fds: [&dyn AsFdDyn; N],
    deadline: &mut Deadline,
) -> Result<[bool; N], Errno> {
    loop {
        let rest = deadline.remaining();
        let ready = readable_within(fds, rest)?;
        if rest.is_zero() || ready.contains(&true) {
            return Ok(ready);
        }
    }
}

/// The same for a time that is meant as it is, on any machine: for what is let go on for a while.
///
/// # Errors
///
/// What `poll` says.
pub fn readable_within<const N: usize>(
    fds: [&dyn AsFdDyn; N],
    time: Duration,
) -> Result<[bool; N], Errno> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd.as_fd_dyn(), PollFlags::IN));
    let end = Instant::now() + time;
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

/// What another thread sends.
///
/// # Errors
///
/// Nothing comes within `deadline`, as long as that is on this machine, or nobody is there to send.
pub fn received<T>(from: &Receiver<T>, deadline: Duration) -> Result<T> {
    let mut deadline = Deadline::after(deadline);
    loop {
        let rest = deadline.remaining();
        match from.recv_timeout(rest) {
            Ok(sent) => return Ok(sent),
            Err(RecvTimeoutError::Timeout) if !rest.is_zero() => {}
            Err(RecvTimeoutError::Timeout) => bail!("not within {deadline}"),
            Err(RecvTimeoutError::Disconnected) => bail!("its thread has ended"),
        }
    }
}

/// Fails unless something that is told at once has come well before anything that waits would have
/// given up.
///
/// # Errors
///
/// It took more than half of [`SOON`], as long as that is on this machine.
pub fn at_once(what: &str, took: Duration) -> Result<()> {
    match overdue(took, SOON / 2) {
        Some(limit) => bail!("{what} after {took:?}, which is more than {limit:?}"),
        None => Ok(()),
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
