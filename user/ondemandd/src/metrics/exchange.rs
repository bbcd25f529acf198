// SPDX-License-Identifier: MIT OR Apache-2.0

//! One client of the metrics: a request of a few lines, an answer, the end.
//!
//! ```text
//!   Reading --- blank line ---> Writing --- all sent ---> Draining --- end of input ---> Done
//! ```
//!
//! The client is not trusted: what it sends is bounded, and in every state it is given up at the same
//! deadline. Draining is there since a socket that is closed with input unread takes back what the client
//! has not read yet.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::PollFlags;

use super::CONTENT_TYPE;

/// A request has no more bytes before its blank line.
pub(super) const LONGEST_HEAD: usize = 8 << 10;
/// So much is read and thrown away after the answer.
const MOST_DRAINED: usize = 64 << 10;

/// A connection that does not block.
pub(super) trait Stream: Read + Write + AsFd + Send {
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
    stream: Box<dyn Stream>,
    /// It is given up then.
    by: Instant,
    state: State,
}

enum State {
    /// The request so far.
    Reading(Vec<u8>),
    /// The answer, and how much of it was sent.
    Writing(Vec<u8>, usize),
    /// How much was thrown away.
    Draining(usize),
    Done,
}

impl Exchange {
    pub(super) fn new(stream: Box<dyn Stream>, by: Instant) -> Self {
        Exchange {
            stream,
            by,
            state: State::Reading(Vec::new()),
        }
    }

    pub(super) fn stream(&self) -> &dyn Stream {
        &*self.stream
    }

    pub(super) fn deadline(&self) -> Instant {
        self.by
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> PollFlags {
        match self.state {
            State::Writing(..) => PollFlags::OUT,
            _ => PollFlags::IN,
        }
    }

    /// Whether the connection is to be closed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        matches!(self.state, State::Done) || self.by <= now
    }

    /// Goes on as far as it can without waiting. `metrics` is asked for once, if the client asks for it.
    pub(super) fn go_on(&mut self, metrics: &dyn Fn() -> Option<String>) {
        loop {
            let next = match &mut self.state {
                State::Reading(head) => read_head(&mut *self.stream, head, metrics),
                State::Writing(answer, sent) => write_answer(&mut *self.stream, answer, sent),
                State::Draining(thrown) => drain(&mut *self.stream, thrown),
                State::Done => return,
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

fn read_head(
    stream: &mut dyn Stream,
    head: &mut Vec<u8>,
    metrics: &dyn Fn() -> Option<String>,
) -> io::Result<Option<State>> {
    let mut part = [0; 1024];
    let len = stream.read(&mut part)?;
    if len == 0 {
        return Ok(Some(State::Done));
    }
    head.extend_from_slice(&part[..len]);
    let is_complete = head.windows(4).any(|end| end == b"\r\n\r\n");
    if head.len() > LONGEST_HEAD {
        let answer = answer(
            "431 Request Header Fields Too Large",
            "",
            "too long\n",
            false,
        );
        return Ok(Some(State::Writing(answer, 0)));
    }
    Ok(is_complete.then(|| State::Writing(answer_to(head, metrics), 0)))
}

fn write_answer(
    stream: &mut dyn Stream,
    answer: &[u8],
    sent: &mut usize,
) -> io::Result<Option<State>> {
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

/// The answer to a request whose blank line has come.
fn answer_to(head: &[u8], metrics: &dyn Fn() -> Option<String>) -> Vec<u8> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words.as_slice() else {
        return answer("400 Bad Request", "", "no request\n", false);
    };
    if !version.starts_with(b"HTTP/1.") {
        return answer(
            "505 HTTP Version Not Supported",
            "",
            "HTTP/1.1 only\n",
            false,
        );
    }
    let without_body = *method == b"HEAD";
    if *method != b"GET" && !without_body {
        return answer(
            "405 Method Not Allowed",
            "Allow: GET, HEAD\r\n",
            "GET only\n",
            false,
        );
    }
    let path = target.split(|byte| *byte == b'?').next();
    if path != Some(b"/metrics") {
        return answer("404 Not Found", "", "see /metrics\n", without_body);
    }
    match metrics() {
        Some(text) => {
            let kind = format!("Content-Type: {CONTENT_TYPE}\r\n");
            answer("200 OK", &kind, &text, without_body)
        }
        None => answer("500 Internal Server Error", "", "failed\n", without_body),
    }
}

fn answer(status: &str, headers: &str, body: &str, without_body: bool) -> Vec<u8> {
    let len = body.len();
    let mut answer =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n");
    if !without_body {
        answer.push_str(body);
    }
    answer.into_bytes()
}
