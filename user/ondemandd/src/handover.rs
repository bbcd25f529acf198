// SPDX-License-Identifier: MIT OR Apache-2.0

//! The socket between keeper and worker.
//!
//! The keeper sends the device, the counters and how to begin; the worker answers when it serves. One that
//! is started while another one serves says before that it is prepared, or why it cannot be, and begins
//! when it is told to:
//!
//! ```text
//!   keeper            worker              keeper            worker
//!     | DEVICE first    |                   | DEVICE on go    |
//!     |   or restore    |                   |---------------->| opens its sources, enters its sandbox
//!     |---------------->|                   |<----------------| PREPARED, or FAILED with the reason
//!     |           READY |                   | GO              |
//!     |<----------------|                   |---------------->| writes `restore`
//!                                           |           READY |
//!                                           |<----------------|
//! ```
//!
//! After that the socket tells each side that the other has ended, and a worker that may change no file asks the
//! keeper on it to make a stored file stale (STALE, with a number that the answer, DONE, repeats). A packet arrives
//! as a whole or not at all, and the two may be different versions of the program: the packet starts with a version.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use cachefiles_proto::passing;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;
use thiserror::Error;

/// The version of a keeper's state that this program writes and reads; another meaning of it, or of the
/// descriptors beside it, takes another number.
pub const RESUMES: u8 = 4;

/// Exit status of a worker that found the cache dead: another worker would be of no use.
pub const EXIT_CACHE_DEAD: u8 = 3;

/// The start of every packet: a name and the version of what follows.
const MAGIC: [u8; 6] = *b"ONDD\0\x01";
const KIND_DEVICE: u8 = 0;
const KIND_READY: u8 = 1;
const KIND_PREPARED: u8 = 2;
const KIND_GO: u8 = 3;
const KIND_FAILED: u8 = 4;
const KIND_STALE: u8 = 5;
const KIND_DONE: u8 = 6;

/// How to begin, the argument of `KIND_DEVICE`.
const BEGIN_FIRST: u8 = 0;
const BEGIN_RESTORE: u8 = 1;
const BEGIN_ON_GO: u8 = 2;

/// A text is cut to so many bytes: an object's name takes three for a byte that is not printable.
const LONGEST_REASON: usize = 2048;

/// What every packet begins with, and some consist of.
type Head = [u8; 8];

/// What goes wrong on the socket.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// `socketpair` failed.
    #[error("cannot make a socket pair: {0}")]
    Pair(Errno),
    /// `sendmsg` failed; `EPIPE`: the other side has ended.
    #[error("cannot send to the other process: {0}")]
    Send(Errno),
    /// `poll` failed.
    #[error("cannot wait for the other process: {0}")]
    Poll(Errno),
    /// `recvmsg` failed.
    #[error("cannot receive from the other process: {0}")]
    Receive(Errno),
    /// Nothing came in time.
    #[error("the other process said nothing for {0:?}")]
    TimedOut(Duration),
    /// The other side has ended.
    #[error("the other process has ended")]
    Closed,
    /// A packet of another version, or none at all.
    #[error("the other process speaks another version of the handover")]
    Malformed,
    /// Too many or too few descriptors, or the process has no room for them.
    #[error("the packet carries {0} descriptors instead of 2")]
    Descriptors(usize),
}

/// One end of the socket.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// What a worker gets.
#[derive(Debug)]
pub struct Handover {
    /// `/dev/cachefiles`, bound.
    pub device: OwnedFd,
    /// The memory of the [`Counters`](crate::counters::Counters).
    pub counters: OwnedFd,
    /// How to begin.
    pub begin: Begin,
}

/// How a worker begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begin {
    /// At once: nobody had the device before.
    First,
    /// At once, with `restore`: another worker had the device before.
    Restore,
    /// With `restore`, when it is told to: another worker serves yet.
    OnGo,
}

/// What a worker says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    /// It serves.
    Ready,
    /// It could begin.
    Prepared {
        /// The version of a keeper's state that its program can go on from.
        resumes: u8,
    },
    /// It cannot, and ends.
    Failed(
        /// Why.
        String,
    ),
    /// It wants a stored file to be made stale, before it answers an OPEN.
    Stale {
        /// The answer repeats it.
        number: u8,
        /// Of which object: a record's name.
        name: String,
    },
}

/// What the keeper says to that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Done {
    /// Of the question.
    pub number: u8,
    /// Why it could not, if it could not.
    pub failed: Option<String>,
}

impl Channel {
    /// Both ends, close-on-exec.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Pair`], for want of descriptors or memory.
    pub fn pair() -> Result<(Channel, Channel), HandoverError> {
        let (one, other) = passing::pair().map_err(HandoverError::Pair)?;
        Ok((Channel { socket: one }, Channel { socket: other }))
    }

    /// Sends the device and the counters; the sender keeps its own descriptors.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Send`].
    pub fn send_device(
        &self,
        device: BorrowedFd<'_>,
        counters: BorrowedFd<'_>,
        begin: Begin,
    ) -> Result<(), HandoverError> {
        let begin = match begin {
            Begin::First => BEGIN_FIRST,
            Begin::Restore => BEGIN_RESTORE,
            Begin::OnGo => BEGIN_ON_GO,
        };
        self.send(&head(KIND_DEVICE, begin), &[device, counters])
    }

    /// Says something to the keeper; a reason is cut if it is long.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Send`].
    pub fn send_word(&self, word: &Word) -> Result<(), HandoverError> {
        let packet = match word {
            Word::Ready => head(KIND_READY, 0).to_vec(),
            Word::Prepared { resumes } => head(KIND_PREPARED, *resumes).to_vec(),
            Word::Failed(reason) => with_text(KIND_FAILED, 0, reason),
            // A name that is cut is of no object, and the keeper says so.
            Word::Stale { number, name } => with_text(KIND_STALE, *number, name),
        };
        self.send(&packet, &[])
    }

    /// Answers a worker.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Send`].
    pub fn send_done(&self, done: &Done) -> Result<(), HandoverError> {
        let failed = done.failed.as_deref().unwrap_or_default();
        self.send(&with_text(KIND_DONE, done.number, failed), &[])
    }

    /// Waits for what [`Channel::send_done`] sends.
    ///
    /// # Errors
    ///
    /// As [`Channel::receive_device`].
    pub fn receive_done(&self, within: Duration) -> Result<Done, HandoverError> {
        let ((kind, number), text, _) = self.receive(Some(within))?;
        if kind != KIND_DONE {
            return Err(HandoverError::Malformed);
        }
        let failed = (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned());
        Ok(Done { number, failed })
    }

    /// Tells a worker that is prepared to begin.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Send`].
    pub fn send_go(&self) -> Result<(), HandoverError> {
        self.send(&head(KIND_GO, 0), &[])
    }

    fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
        passing::send(&self.socket, packet, fds).map_err(HandoverError::Send)
    }

    /// Waits for what [`Channel::send_device`] sends. The descriptors are close-on-exec.
    ///
    /// # Errors
    ///
    /// [`HandoverError::TimedOut`], [`HandoverError::Closed`], [`HandoverError::Malformed`],
    /// [`HandoverError::Descriptors`], [`HandoverError::Poll`], [`HandoverError::Receive`].
    pub fn receive_device(&self, within: Duration) -> Result<Handover, HandoverError> {
        let (head, _, fds) = self.receive(Some(within))?;
        let begin = match head {
            (KIND_DEVICE, BEGIN_FIRST) => Begin::First,
            (KIND_DEVICE, BEGIN_RESTORE) => Begin::Restore,
            (KIND_DEVICE, BEGIN_ON_GO) => Begin::OnGo,
            _ => return Err(HandoverError::Malformed),
        };
        let [device, counters] =
            <[OwnedFd; 2]>::try_from(fds).map_err(|fds| HandoverError::Descriptors(fds.len()))?;
        Ok(Handover {
            device,
            counters,
            begin,
        })
    }

    /// Waits for what [`Channel::send_word`] sends.
    ///
    /// # Errors
    ///
    /// As [`Channel::receive_device`].
    pub fn receive_word(&self, within: Duration) -> Result<Word, HandoverError> {
        let (head, text, _) = self.receive(Some(within))?;
        match head {
            (KIND_READY, 0) => Ok(Word::Ready),
            (KIND_PREPARED, resumes) => Ok(Word::Prepared { resumes }),
            (KIND_FAILED, 0) => Ok(Word::Failed(String::from_utf8_lossy(&text).into_owned())),
            (KIND_STALE, number) => Ok(Word::Stale {
                number,
                name: String::from_utf8(text).map_err(|_| HandoverError::Malformed)?,
            }),
            _ => Err(HandoverError::Malformed),
        }
    }

    /// Waits for what [`Channel::send_go`] sends, as long as the keeper lives.
    ///
    /// # Errors
    ///
    /// As [`Channel::receive_device`].
    pub fn receive_go(&self) -> Result<(), HandoverError> {
        match self.receive(None)? {
            ((KIND_GO, 0), _, _) => Ok(()),
            _ => Err(HandoverError::Malformed),
        }
    }

    /// Waits, for ever if need be, until the other side has ended.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Poll`].
    pub fn wait_for_end(&self) -> Result<(), HandoverError> {
        loop {
            // HUP is always reported.
            let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))
                .map_err(HandoverError::Poll)?;
            if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
                return Ok(());
            }
        }
    }

    /// Kind and argument, what follows, and descriptors; waits for ever if no time is given.
    fn receive(&self, within: Option<Duration>) -> Result<Received, HandoverError> {
        self.wait(within)?;
        let packet = passing::receive(&self.socket, size_of::<Head>() + LONGEST_REASON)
            .map_err(HandoverError::Receive)?;
        if packet.bytes.is_empty() {
            return Err(HandoverError::Closed);
        }
        match packet.bytes.strip_prefix(&MAGIC) {
            Some([kind, argument, text @ ..])
                if !packet.is_cut && (text.is_empty() || has_text(*kind)) =>
            {
                Ok(((*kind, *argument), text.to_vec(), packet.fds))
            }
            _ => Err(HandoverError::Malformed),
        }
    }

    fn wait(&self, within: Option<Duration>) -> Result<(), HandoverError> {
        let timeout = within.and_then(|within| Timespec::try_from(within).ok());
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, timeout.as_ref()))
            .map_err(HandoverError::Poll)?;
        if ready == 0 {
            return Err(HandoverError::TimedOut(within.unwrap_or_default()));
        }
        Ok(())
    }
}

/// What a packet says, what follows, and its descriptors.
type Received = ((u8, u8), Vec<u8>, Vec<OwnedFd>);

fn has_text(kind: u8) -> bool {
    matches!(kind, KIND_FAILED | KIND_STALE | KIND_DONE)
}

fn with_text(kind: u8, argument: u8, text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let text = text.get(..LONGEST_REASON).unwrap_or(text);
    [&head(kind, argument), text].concat()
}

fn head(kind: u8, argument: u8) -> Head {
    let [a, b, c, d, e, f] = MAGIC;
    [a, b, c, d, e, f, kind, argument]
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Channel { socket }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

impl Channel {
    /// The same end once more, for another thread.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub(crate) fn duplicate(&self) -> std::io::Result<Self> {
        let socket = self.socket.try_clone()?;
        Ok(Channel { socket })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
