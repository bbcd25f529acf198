// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sockets that the keeper serves, for metrics and for its control: each client asks once and is answered
//! once.
//!
//! Nobody waits for a client: one that says nothing costs a descriptor until its deadline, and less if
//! others come. What is asked and answered is up to a [`Service`]; who waits for all of it together, in a
//! thread of its own or in the keeper's loop, is up to the owner of [`Clients`].

mod exchange;

use std::io;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use tracing::warn;

use self::exchange::Exchange;
pub(crate) use self::exchange::Stream;

/// How many clients may be connected. Another one takes the place of the one that came first.
pub(crate) const MOST_CLIENTS: usize = 16;
/// How long a client may take for all of it.
pub const CLIENT_WITHIN: Duration = Duration::from_secs(5);
/// The pause after a failure to accept, for want of descriptors for example.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the clients of one socket apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ClientId(u64);

/// What clients may ask.
pub(crate) trait Service {
    /// A request has no more bytes.
    const LONGEST_REQUEST: usize;

    /// Whether all of a request is there.
    fn is_complete(request: &[u8]) -> bool;

    /// What a client gets whose request is too long.
    fn too_long() -> Vec<u8>;

    /// The answer to a request; `None` if it follows, by [`Clients::answer`].
    fn answer(&mut self, client: ClientId, request: &[u8]) -> Option<Vec<u8>>;
}

/// A client that has just connected.
pub(crate) struct Newcomer {
    /// Its connection, which does not block.
    pub(crate) stream: Box<dyn Stream>,
    /// It may not ask, and gets this.
    pub(crate) refused: Option<Vec<u8>>,
}

/// A socket that listens, and does not block.
pub(crate) trait Listen: AsFd {
    /// A client that waits, if one does.
    fn accept(&self) -> io::Result<Option<Newcomer>>;
}

/// Nobody there is no failure; one that has gone again says nothing about the next.
pub(crate) fn if_any<T>(accepted: io::Result<T>) -> io::Result<Option<T>> {
    match accepted {
        Ok(it) => Ok(Some(it)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A socket and its clients.
pub(crate) struct Clients<L> {
    listener: L,
    within: Duration,
    clients: Vec<Exchange>,
    came: u64,
    /// Nobody is accepted before.
    pause: Option<Instant>,
}

impl<L: Listen> Clients<L> {
    /// Nobody so far; `within` is how long a client may take.
    pub(crate) fn new(listener: L, within: Duration) -> Self {
        Clients {
            listener,
            within,
            clients: Vec::new(),
            came: 0,
            pause: None,
        }
    }

    /// The socket.
    pub(crate) fn listener(&self) -> &L {
        &self.listener
    }

    /// The connection of a client that waits; `None` if it has gone.
    pub(crate) fn connection(&self, client: ClientId) -> Option<BorrowedFd<'_>> {
        let client = self.clients.iter().find(|it| it.id() == client);
        client.map(Exchange::as_fd)
    }

    /// Answers a client that another program of this process has left behind.
    pub(crate) fn adopt(&mut self, stream: Box<dyn Stream>, answer: Vec<u8>) {
        let by = Instant::now() + self.within;
        self.came += 1;
        let mut client = Exchange::new(ClientId(self.came), stream, by);
        client.answer(answer, by);
        self.clients.push(client);
    }

    /// What to `poll` for; [`Clients::go_on`] takes what was found, in this order.
    pub(crate) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let accepts = match self.pause {
            Some(_) => PollFlags::empty(),
            None => PollFlags::IN,
        };
        let mut fds = vec![PollFd::new(&self.listener, accepts)];
        let clients = self.clients.iter();
        fds.extend(clients.map(|it| PollFd::from_borrowed_fd(it.as_fd(), it.interest())));
        fds
    }

    /// When [`Clients::go_on`] is due even if nothing has happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let clients = self.clients.iter().filter_map(Exchange::deadline);
        clients.chain(self.pause).min()
    }

    /// Goes on with all that can; `ready` says of each of [`Clients::poll_fds`] whether `poll` has found
    /// anything. Never blocks.
    pub(crate) fn go_on<S: Service>(&mut self, ready: &[bool], service: &mut S) {
        let (has_new, ready) = ready
            .split_first()
            .map_or((false, ready), |(new, rest)| (*new, rest));
        for (client, _) in self
            .clients
            .iter_mut()
            .zip(ready)
            .filter(|(_, ready)| **ready)
        {
            client.go_on(service);
        }
        let now = Instant::now();
        if self.pause.is_some_and(|pause| pause <= now) {
            self.pause = None;
        }
        if has_new {
            self.accept(now, service);
        }
        self.clients.retain(|client| !client.is_over(now));
    }

    /// Answers a client that waits; one that has gone is none.
    pub(crate) fn answer(&mut self, client: ClientId, answer: Vec<u8>) {
        let by = Instant::now() + self.within;
        if let Some(client) = self.clients.iter_mut().find(|it| it.id() == client) {
            client.answer(answer, by);
        }
    }

    fn accept<S: Service>(&mut self, now: Instant, service: &mut S) {
        match self.listener.accept() {
            Ok(Some(newcomer)) => self.take_in(newcomer, now, service),
            Ok(None) => {}
            Err(error) => {
                warn!(%error, "cannot take a client; tried again");
                self.pause = Some(now + PAUSE);
            }
        }
    }

    fn take_in<S: Service>(&mut self, newcomer: Newcomer, now: Instant, service: &mut S) {
        if self.clients.len() >= MOST_CLIENTS {
            // Who waits for us has not been slow.
            let first = self.clients.iter().position(|it| !it.is_waiting());
            self.clients.remove(first.unwrap_or(0));
        }
        let by = now + self.within;
        self.came += 1;
        let mut client = Exchange::new(ClientId(self.came), newcomer.stream, by);
        if let Some(answer) = newcomer.refused {
            client.answer(answer, by);
            client.go_on(service);
        }
        self.clients.push(client);
    }
}
