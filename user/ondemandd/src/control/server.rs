// SPDX-License-Identifier: MIT OR Apache-2.0

//! The control socket's side in the keeper. It is part of the keeper's loop, and never waits for a client.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use rustix::event::PollFd;
use rustix::net::AddressFamily;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::process::Uid;
use tracing::warn;

use super::Answer;
use super::Request;
use super::Targets;
use super::LONGEST_REQUEST;
use crate::clients;
use crate::clients::ClientId;
use crate::clients::Clients;
use crate::clients::Listen;
use crate::clients::Newcomer;
use crate::clients::Service;
use crate::report::Reporter;
use crate::source::names::SourceList;

/// Only the owner may connect; root may in any case.
const SOCKET_MODE: u32 = 0o600;
/// So many may wait to be accepted.
const BACKLOG: i32 = 64;

/// The socket.
#[derive(Debug)]
pub(crate) struct ControlListener {
    socket: UnixListener,
}

impl ControlListener {
    /// Listens at a path, where nothing may be.
    ///
    /// # Errors
    ///
    /// The path is too long for a socket (108 bytes), is taken, or cannot be written.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        let socket = listen(path).with_context(|| {
            format!(
                "cannot listen at {}: choose another place with --run-dir",
                path.display()
            )
        })?;
        Ok(ControlListener { socket })
    }
}

/// A socket that an earlier program of this process has listened at.
impl From<OwnedFd> for ControlListener {
    fn from(socket: OwnedFd) -> Self {
        ControlListener {
            socket: UnixListener::from(socket),
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    // Nobody can connect before `listen`, so nobody does who may not.
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

impl AsFd for ControlListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listen for ControlListener {
    fn accept(&self) -> io::Result<Option<Newcomer>> {
        let Some((stream, _)) = clients::if_any(self.socket.accept())? else {
            return Ok(None);
        };
        stream.set_nonblocking(true)?;
        // Whoever they were when they connected. The pid is of no use: it may be of somebody else by now.
        let uid = rustix::net::sockopt::socket_peercred(&stream)?.uid;
        let refused = (!may_ask(uid, rustix::process::geteuid())).then(|| {
            warn!(
                uid = uid.as_raw(),
                "a client of the control socket is refused"
            );
            let why = format!(
                "user {} may not ask: root may, and who the keeper is",
                uid.as_raw()
            );
            line(&Answer::error(why))
        });
        Ok(Some(Newcomer {
            stream: Box::new(stream),
            refused,
        }))
    }
}

/// Who may ask. The mode of the socket's file says the same, as long as nobody changes it.
pub(crate) fn may_ask(peer: Uid, own: Uid) -> bool {
    peer.is_root() || peer == own
}

/// The socket, its clients, and what they get.
pub(crate) struct Control {
    clients: Clients<ControlListener>,
    desk: Desk,
}

/// Answers requests.
struct Desk {
    reporter: Arc<Reporter>,
    wishes: VecDeque<Wish>,
    errands: VecDeque<(ClientId, Targets)>,
    /// Where blobs come from, if that is known.
    sources: Option<SourceList>,
}

/// A client wants an upgrade, and waits.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) client: ClientId,
    /// To what; `None`: whatever is where the keeper's own program was.
    pub(crate) program: Option<PathBuf>,
}

impl Control {
    pub(crate) fn new(
        listener: ControlListener,
        reporter: Arc<Reporter>,
        sources: Option<SourceList>,
        within: Duration,
    ) -> Self {
        Control {
            clients: Clients::new(listener, within),
            desk: Desk {
                reporter,
                wishes: VecDeque::new(),
                errands: VecDeque::new(),
                sources,
            },
        }
    }

    /// Goes on with a socket and a client of an earlier program of this process.
    pub(crate) fn adopt(&mut self, client: UnixStream, answer: &Answer) {
        self.clients.adopt(Box::new(client), line(answer));
    }

    /// The next upgrade that somebody wants.
    pub(crate) fn take_wish(&mut self) -> Option<Wish> {
        self.desk.wishes.pop_front()
    }

    /// What somebody wants to be evicted next.
    pub(crate) fn take_errand(&mut self) -> Option<(ClientId, Targets)> {
        self.desk.errands.pop_front()
    }

    /// Answers a client that waits.
    pub(crate) fn answer(&mut self, client: ClientId, answer: &Answer) {
        self.clients.answer(client, line(answer));
    }

    /// The connection of a client that waits, if it has not gone.
    pub(crate) fn connection(&self, client: ClientId) -> Option<BorrowedFd<'_>> {
        self.clients.connection(client)
    }

    /// The socket.
    pub(crate) fn listener(&self) -> &ControlListener {
        self.clients.listener()
    }

    /// As [`Clients::poll_fds`].
    pub(crate) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        self.clients.poll_fds()
    }

    /// As [`Clients::deadline`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.clients.deadline()
    }

    /// Goes on with all clients once more: the process ends, and an answer that was just given is to leave before.
    pub(crate) fn finish(&mut self) {
        let mut ready = vec![true; self.clients.poll_fds().len()];
        // Nobody is taken in any more.
        if let Some(newcomers) = ready.first_mut() {
            *newcomers = false;
        }
        self.go_on(&ready);
    }

    /// As [`Clients::go_on`].
    pub(crate) fn go_on(&mut self, ready: &[bool]) {
        self.clients.go_on(ready, &mut self.desk);
    }
}

impl Service for Desk {
    const LONGEST_REQUEST: usize = LONGEST_REQUEST;

    fn is_complete(request: &[u8]) -> bool {
        request.contains(&b'\n')
    }

    fn too_long() -> Vec<u8> {
        line(&Answer::error(format!(
            "the request is longer than {LONGEST_REQUEST} bytes"
        )))
    }

    fn answer(&mut self, client: ClientId, request: &[u8]) -> Option<Vec<u8>> {
        let request = request.split(|byte| *byte == b'\n').next();
        let answer = match serde_json::from_slice(request.unwrap_or_default()) {
            Ok(Request::Stats) => Answer::Stats {
                report: Box::new(self.reporter.report()),
            },
            Ok(Request::Upgrade { program }) => {
                self.wishes.push_back(Wish { client, program });
                return None;
            }
            Ok(Request::Evict { targets }) => {
                self.errands.push_back((client, targets));
                return None;
            }
            Ok(Request::Sources) => match &self.sources {
                Some(sources) => Answer::Sources {
                    sources: Box::new(sources.clone()),
                },
                None => Answer::error("nobody knows the sources"),
            },
            Err(error) => Answer::error(format!("no request that is known: {error}")),
        };
        Some(line(&answer))
    }
}

fn line(answer: &Answer) -> Vec<u8> {
    // A path of the report may be no UTF-8.
    let text = serde_json::to_vec(answer).or_else(|error| {
        serde_json::to_vec(&Answer::error(format!(
            "the answer cannot be written: {error}"
        )))
    });
    let mut text = text.unwrap_or_default();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests;
