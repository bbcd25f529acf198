// SPDX-License-Identifier: MIT OR Apache-2.0

//! systemd, if it has started the keeper: what it is told, and the descriptor that it keeps.
//!
//! ```text
//!   bind ------------> FDSTORE=1, FDNAME=cachefiles      systemd has a copy of the device
//!   worker serves ---> READY=1
//!   SIGTERM ---------> STOPPING=1                        the copy stays
//!   cache is dead ---> FDSTOREREMOVE=1, FDNAME=cachefiles
//!   start -----------> LISTEN_FDS, LISTEN_FDNAMES        go on with the copy, if there is one
//! ```
//!
//! The copy is not taken back at SIGTERM, since the keeper cannot know whether `stop` or `restart` was
//! meant; systemd does: it closes the copy when the service has stopped, and the cache ends then, or gives
//! it to the next keeper. So a restart costs readers a pause, and a crash of the keeper does as well.
//!
//! Without systemd nothing here does anything. What cannot be told is a line of the log.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use sd_notify::NotifyState;
use tracing::warn;

/// What the device is called in the store.
pub const FD_NAME: &str = "cachefiles";

/// No event of the device takes it out of the store. systemd would otherwise drop it at the first
/// `EPOLLERR`, which it may see before the keeper does.
const NO_POLL: NotifyState<'static> = NotifyState::Custom("FDPOLL=0");

/// Variables that are meant for the keeper, and for none of its children.
pub const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Says that the cache is served; `status` is one line for people.
pub fn tell_ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says what the keeper does, in one line for people.
pub fn tell_status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Says that the keeper is about to end.
pub fn tell_stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Has systemd keep a copy of the device, instead of any that it has kept before.
pub fn store(device: BorrowedFd<'_>) {
    forget();
    let states = [NotifyState::FdStore, NotifyState::FdName(FD_NAME), NO_POLL];
    if let Err(error) = sd_notify::notify_with_fds(&states, &[device]) {
        warn!(%error, "systemd cannot keep the device: the cache ends with this keeper");
    }
}

/// Has systemd close its copy of the device, if it has one.
pub fn forget() {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(FD_NAME)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell systemd how it goes");
    }
}

/// The descriptor that systemd has kept for this process, if it has.
///
/// What is returned is a copy, close-on-exec as the original is; the original stays open until the process
/// ends, since nothing can own a number that came in a variable.
///
/// # Errors
///
/// The variables contradict what there is; the kernel is older than 5.6, or a filter of system calls has no
/// `pidfd_getfd`.
pub fn stored() -> anyhow::Result<Option<OwnedFd>> {
    let fds = sd_notify::listen_fds_with_names().context("LISTEN_FDS, LISTEN_FDNAMES")?;
    // The device can be open once: two of that name are copies of one another.
    let Some((number, _)) = fds.into_iter().find(|(_, name)| name == FD_NAME) else {
        return Ok(None);
    };
    let cannot = || format!("cannot take descriptor {number}, which systemd has kept");
    let own = rustix::process::getpid();
    let own = rustix::process::pidfd_open(own, PidfdFlags::empty()).with_context(cannot)?;
    let fd = rustix::process::pidfd_getfd(own.as_fd(), number, PidfdGetfdFlags::empty())
        .with_context(cannot)?;
    Ok(Some(fd))
}

/// Tells systemd again and again that the keeper is alive, if systemd wants to know (`WatchdogSec=`).
#[derive(Debug)]
pub struct Watchdog {
    /// Half of what systemd waits for.
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::new(sd_notify::watchdog_enabled())
    }

    fn new(within: Option<Duration>) -> Self {
        Watchdog {
            every: within.map(|within| within / 2),
            next: Instant::now(),
        }
    }

    /// Tells systemd, if it is time; returns when it will be the next time.
    pub fn tell(&mut self, now: Instant) -> Option<Instant> {
        let every = self.every?;
        if self.next <= now {
            tell(&[NotifyState::Watchdog]);
            self.next = now + every;
        }
        Some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_told_twice_as_often_as_it_wants() {
        let now = Instant::now();
        assert_eq!(Watchdog::new(None).tell(now), None);
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(30)));
        let next = now + Duration::from_secs(15);
        let now = watchdog.next;
        let first = watchdog.tell(now).unwrap();
        assert_eq!(first, now + Duration::from_secs(15));
        assert!(first >= next);
        assert_eq!(watchdog.tell(now), Some(first), "not yet");
        assert_eq!(
            watchdog.tell(first),
            Some(first + Duration::from_secs(15)),
            "now"
        );
    }
}
