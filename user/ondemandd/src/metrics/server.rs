// SPDX-License-Identifier: MIT OR Apache-2.0

//! The thread that serves metrics.
//!
//! One thread for all clients, which never waits for one of them: a client that says nothing costs a
//! descriptor until its deadline, and less if others come. Whatever goes wrong here, the keeper does not
//! notice.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;
use tracing::error;
use tracing::info;
use tracing::warn;

use super::address::Listener;
use super::address::MetricsAddress;
use super::exchange::Exchange;
use crate::report::Reporter;

/// How many clients may be connected. Another one takes the place of the one that came first.
const MOST_CLIENTS: usize = 16;
/// How long a client may take for all of it.
pub const CLIENT_WITHIN: Duration = Duration::from_secs(5);
/// The pause after a failure to accept, for want of descriptors for example.
const PAUSE: Duration = Duration::from_secs(1);

/// A socket that listens, before anybody is answered: it can fail while nothing has begun yet.
#[derive(Debug)]
pub struct MetricsServer {
    listener: Listener,
    within: Duration,
}

impl MetricsServer {
    /// Listens.
    ///
    /// # Errors
    ///
    /// The port or path is in use, or may not be used.
    pub fn bind(address: &MetricsAddress) -> anyhow::Result<Self> {
        Ok(MetricsServer {
            listener: Listener::bind(address)?,
            within: CLIENT_WITHIN,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// What `getsockname` says.
    pub fn address(&self) -> io::Result<MetricsAddress> {
        self.listener.address()
    }

    /// Gives clients another time than [`CLIENT_WITHIN`].
    #[must_use]
    pub fn with_deadline(self, within: Duration) -> Self {
        MetricsServer { within, ..self }
    }

    /// Starts the thread; it ends with the process.
    ///
    /// # Errors
    ///
    /// There can be no more threads.
    pub fn start(self, reporter: Arc<Reporter>) -> anyhow::Result<()> {
        let address = self.address().context("where metrics are served")?;
        thread::Builder::new()
            .name("ondemandd-metrics".into())
            .spawn(move || {
                let error = self.run(&reporter);
                error!(%error, "no more metrics");
            })
            .context("cannot start the thread of the metrics")?;
        info!(%address, "metrics are served");
        Ok(())
    }

    fn run(&self, reporter: &Reporter) -> Errno {
        let metrics = || super::text(reporter.report()).ok();
        let mut clients: Vec<Exchange> = Vec::new();
        loop {
            let (has_new, ready) = match self.wait(&clients) {
                Ok(ready) => ready,
                Err(errno) => return errno,
            };
            for (client, _) in clients.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                client.go_on(&metrics);
            }
            if has_new {
                self.accept(&mut clients);
            }
            let now = Instant::now();
            clients.retain(|client| !client.is_over(now));
        }
    }

    /// Waits for whatever comes first; says whether there is a new client, and which of the others can go on.
    fn wait(&self, clients: &[Exchange]) -> Result<(bool, Vec<bool>), Errno> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for client in clients {
            let fd = client.stream().as_fd();
            fds.push(PollFd::from_borrowed_fd(fd, client.interest()));
        }
        let first = clients.iter().map(Exchange::deadline).min();
        let left = first.map(|by| by.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok((false, vec![false; clients.len()])),
            Err(errno) => return Err(errno),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let has_new = ready.next().unwrap_or(false);
        Ok((has_new, ready.collect()))
    }

    fn accept(&self, clients: &mut Vec<Exchange>) {
        match self.listener.accept() {
            Ok(Some(stream)) => {
                if clients.len() >= MOST_CLIENTS {
                    clients.remove(0);
                }
                clients.push(Exchange::new(stream, Instant::now() + self.within));
            }
            Ok(None) => {}
            Err(error) => {
                warn!(%error, "cannot take a client of the metrics; tried again");
                thread::sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests;
