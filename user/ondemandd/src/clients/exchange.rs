// SPDX-License-Identifier: MIT OR Apache-2.0

//! One client: a request, an answer, the end.
//!
//! ```text
//!   Reading --- all is there ---> [Waiting --->] Writing --- all sent ---> Draining --- end of input ---> Done
//! ```
//!
//! The client is not trusted: what it sends is bounded, and in every state but Waiting, in which it is the
//! client that waits, it is given up at the same deadline. Draining is there since a socket that is closed
//! with input unread takes back what the client has not read yet.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::PollFlags;

use super::ClientId;
use super::Service;

/// So much is read and thrown away after the answer.
const MOST_DRAINED: usize = 64 << 10;

/// A connection that does not block.
pub(crate) trait Stream: Read + Write + AsFd + Send {
    /// Says that nothing more will be sent.
    fn end_output(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn end_output(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for UnixStream {
    fn end_output(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A client.
pub(super) struct Exchange {
    id: ClientId,
    stream: Box<dyn Stream>,
    /// It is given up then.
    by: Instant,
    state: State,
}

enum State {
    /// The request so far.
    Reading(Vec<u8>),
    /// The service has the request, and answers later.
    Waiting,
    /// The answer, and how much of it was sent.
    Writing(Vec<u8>, usize),
    /// How much was thrown away.
    Draining(usize),
    Done,
}

impl Exchange {
    /// A client that is to ask.
    pub(super) fn new(id: ClientId, stream: Box<dyn Stream>, by: Instant) -> Self {
        Exchange {
            id,
            stream,
            by,
            state: State::Reading(Vec::new()),
        }
    }

    pub(super) fn id(&self) -> ClientId {
        self.id
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// When it is given up, unless it waits for us.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.is_waiting()).then_some(self.by)
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// What it waits for. The end of the connection is told in any case.
    pub(super) fn interest(&self) -> PollFlags {
        match self.state {
            State::Waiting => PollFlags::empty(),
            State::Writing(..) => PollFlags::OUT,
            _ => PollFlags::IN,
        }
    }

    /// Whether the connection is to be closed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        matches!(self.state, State::Done) || self.deadline().is_some_and(|by| by <= now)
    }

    /// Gives it an answer, whatever it has said so far.
    pub(super) fn answer(&mut self, answer: Vec<u8>, by: Instant) {
        self.by = by;
        self.state = State::Writing(answer, 0);
    }

    /// Goes on as far as it can without waiting, after `poll` has reported something. The service is asked
    /// once at most.
    pub(super) fn go_on<S: Service>(&mut self, service: &mut S) {
        if self.is_waiting() {
            // There is nothing to report but its end.
            self.state = State::Done;
        }
        loop {
            let next = match &mut self.state {
                State::Reading(request) => read(self.id, &mut *self.stream, request, service),
                State::Writing(answer, sent) => write(&mut *self.stream, answer, sent),
                State::Draining(thrown) => drain(&mut *self.stream, thrown),
                State::Waiting | State::Done => return,
            };
            match next {
                Ok(Some(state)) => self.state = state,
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.state = State::Done,
            }
        }
    }
}

fn read<S: Service>(
    id: ClientId,
    stream: &mut dyn Stream,
    request: &mut Vec<u8>,
    service: &mut S,
) -> io::Result<Option<State>> {
    let mut part = [0; 1024];
    let len = stream.read(&mut part)?;
    if len == 0 {
        return Ok(Some(State::Done));
    }
    request.extend_from_slice(&part[..len]);
    if request.len() > S::LONGEST_REQUEST {
        return Ok(Some(State::Writing(S::too_long(), 0)));
    }
    if !S::is_complete(request) {
        return Ok(None);
    }
    let answer = service.answer(id, request);
    Ok(Some(answer.map_or(State::Waiting, |answer| {
        State::Writing(answer, 0)
    })))
}

fn write(stream: &mut dyn Stream, answer: &[u8], sent: &mut usize) -> io::Result<Option<State>> {
    let left = answer.get(*sent..).unwrap_or_default();
    if left.is_empty() {
        stream.end_output()?;
        return Ok(Some(State::Draining(0)));
    }
    match stream.write(left)? {
        0 => Ok(Some(State::Done)),
        len => {
            *sent += len;
            Ok(None)
        }
    }
}

fn drain(stream: &mut dyn Stream, thrown: &mut usize) -> io::Result<Option<State>> {
    let len = stream.read(&mut [0; 4096])?;
    *thrown += len;
    Ok((len == 0 || *thrown > MOST_DRAINED).then_some(State::Done))
}
