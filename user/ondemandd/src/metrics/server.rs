// SPDX-License-Identifier: MIT OR Apache-2.0

//! The thread that serves metrics.
//!
//! One thread for all clients. Whatever goes wrong here, the keeper does not notice.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use rustix::event::Timespec;
use rustix::io::Errno;
use tracing::error;
use tracing::info;

use super::address::Listener;
use super::address::MetricsAddress;
use super::http::Http;
use crate::clients::Clients;
pub use crate::clients::CLIENT_WITHIN;
use crate::report::Reporter;

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

    /// Goes on with a socket that an earlier program of this process has listened with, at this address.
    #[must_use]
    pub fn resume(address: MetricsAddress, socket: OwnedFd) -> Self {
        MetricsServer {
            listener: Listener::resume(address, socket),
            within: CLIENT_WITHIN,
        }
    }

    /// The socket once more, for [`MetricsServer::resume`].
    ///
    /// # Errors
    ///
    /// There can be no more descriptors.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
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

    fn run(self, reporter: &Reporter) -> Errno {
        let mut clients = Clients::new(self.listener, self.within);
        loop {
            match wait(&clients) {
                Ok(ready) => clients.go_on(&ready, &mut Http(reporter)),
                Err(errno) => return errno,
            }
        }
    }
}

/// Waits for whatever comes first.
fn wait(clients: &Clients<Listener>) -> Result<Vec<bool>, Errno> {
    let mut fds = clients.poll_fds();
    let left = clients.deadline();
    let left = left.map(|by| by.saturating_duration_since(Instant::now()));
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        // Nothing was found where it is interrupted.
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno),
    }
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

#[cfg(test)]
mod tests;
