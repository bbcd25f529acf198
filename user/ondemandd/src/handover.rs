// SPDX-License-Identifier: MIT OR Apache-2.0

//! The socket between keeper and worker.
//!
//! One packet each way: the keeper sends the device, the counters and whether to write `restore`;
//! the worker answers when it serves. After that the socket only tells each side that the other
//! has ended. It is a `SOCK_SEQPACKET` pair, so that a packet arrives as a whole or not at all,
//! and the two may be different versions of the program: the packet starts with a version.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::ReturnFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use thiserror::Error;

/// The start of every packet: a name and the version of what follows.
const MAGIC: [u8; 6] = *b"ONDD\0\x01";
const KIND_DEVICE: u8 = 0;
const KIND_READY: u8 = 1;

type Packet = [u8; 8];

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
    /// Another worker had the device before: write `restore`.
    pub restore: bool,
}

impl Channel {
    /// Both ends, close-on-exec.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Pair`], for want of descriptors or memory.
    pub fn pair() -> Result<(Channel, Channel), HandoverError> {
        let (one, other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(HandoverError::Pair)?;
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
        restore: bool,
    ) -> Result<(), HandoverError> {
        let fds = [device, counters];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
        debug_assert!(pushed, "the space was made for two descriptors");
        self.send(packet(KIND_DEVICE, u8::from(restore)), &mut control)
    }

    /// Says that the worker serves.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Send`].
    pub fn send_ready(&self) -> Result<(), HandoverError> {
        self.send(packet(KIND_READY, 0), &mut SendAncillaryBuffer::default())
    }

    fn send(
        &self,
        packet: Packet,
        control: &mut SendAncillaryBuffer<'_, '_, '_>,
    ) -> Result<(), HandoverError> {
        // NOSIGNAL: an end of the other side is an error here, and no signal.
        rustix::net::sendmsg(
            &self.socket,
            &[IoSlice::new(&packet)],
            control,
            SendFlags::NOSIGNAL,
        )
        .map(drop)
        .map_err(HandoverError::Send)
    }

    /// Waits for what [`Channel::send_device`] sends. The descriptors are close-on-exec.
    ///
    /// # Errors
    ///
    /// [`HandoverError::TimedOut`], [`HandoverError::Closed`], [`HandoverError::Malformed`],
    /// [`HandoverError::Descriptors`], [`HandoverError::Poll`], [`HandoverError::Receive`].
    pub fn receive_device(&self, within: Duration) -> Result<Handover, HandoverError> {
        let (packet, fds) = self.receive(within)?;
        let restore = match packet.strip_prefix(&MAGIC) {
            Some([KIND_DEVICE, restore @ (0 | 1)]) => *restore == 1,
            _ => return Err(HandoverError::Malformed),
        };
        let [device, counters] =
            <[OwnedFd; 2]>::try_from(fds).map_err(|fds| HandoverError::Descriptors(fds.len()))?;
        Ok(Handover {
            device,
            counters,
            restore,
        })
    }

    /// Waits for what [`Channel::send_ready`] sends.
    ///
    /// # Errors
    ///
    /// As [`Channel::receive_device`].
    pub fn receive_ready(&self, within: Duration) -> Result<(), HandoverError> {
        let (packet, _) = self.receive(within)?;
        match packet.strip_prefix(&MAGIC) {
            Some([KIND_READY, 0]) => Ok(()),
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

    fn receive(&self, within: Duration) -> Result<(Packet, Vec<OwnedFd>), HandoverError> {
        self.wait(within)?;
        let mut bytes = Packet::default();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })
        .map_err(HandoverError::Receive)?;
        // Take the descriptors first, so that they are closed whatever else is wrong.
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Err(HandoverError::Closed);
        }
        let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
        if received.bytes != bytes.len() || received.flags.intersects(cut) {
            return Err(HandoverError::Malformed);
        }
        Ok((bytes, fds))
    }

    fn wait(&self, within: Duration) -> Result<(), HandoverError> {
        let timeout = Timespec::try_from(within).ok();
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, timeout.as_ref()))
            .map_err(HandoverError::Poll)?;
        if ready == 0 {
            return Err(HandoverError::TimedOut(within));
        }
        Ok(())
    }
}

fn packet(kind: u8, argument: u8) -> Packet {
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

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::io::Seek;
    use std::io::Write;

    use rustix::io::FdFlags;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const AT_ONCE: Duration = Duration::ZERO;

    fn file_with(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    fn text_of(fd: OwnedFd) -> String {
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn both_descriptors_arrive_in_order_and_close_on_exec() {
        for restore in [false, true] {
            let (keeper, worker) = Channel::pair().unwrap();
            let (device, counters) = (file_with("device"), file_with("counters"));
            keeper
                .send_device(device.as_fd(), counters.as_fd(), restore)
                .unwrap();
            let got = worker.receive_device(SOON).unwrap();
            assert_eq!(got.restore, restore);
            for fd in [&got.device, &got.counters] {
                assert_eq!(rustix::io::fcntl_getfd(fd).unwrap(), FdFlags::CLOEXEC);
            }
            assert_eq!(text_of(got.device), "device");
            assert_eq!(text_of(got.counters), "counters");

            worker.send_ready().unwrap();
            keeper.receive_ready(SOON).unwrap();
        }
    }

    #[test]
    fn the_other_sides_end_is_seen() {
        let (keeper, worker) = Channel::pair().unwrap();
        assert!(matches!(
            keeper.receive_ready(AT_ONCE),
            Err(HandoverError::TimedOut(_))
        ));
        drop(worker);
        keeper.wait_for_end().unwrap();
        assert!(matches!(
            keeper.receive_ready(SOON),
            Err(HandoverError::Closed)
        ));
        assert!(matches!(
            keeper.send_ready(),
            Err(HandoverError::Send(Errno::PIPE))
        ));
    }

    #[test]
    fn other_packets_are_refused_and_their_descriptors_closed() {
        let (keeper, worker) = Channel::pair().unwrap();
        keeper.send_ready().unwrap();
        assert!(matches!(
            worker.receive_device(SOON),
            Err(HandoverError::Malformed)
        ));

        rustix::io::write(&keeper, b"ONDD\0\x02\0\0").unwrap();
        assert!(matches!(
            worker.receive_device(SOON),
            Err(HandoverError::Malformed)
        ));

        // The right words without the descriptors.
        rustix::io::write(&keeper, &packet(KIND_DEVICE, 0)).unwrap();
        assert!(matches!(
            worker.receive_device(SOON),
            Err(HandoverError::Descriptors(0))
        ));

        // A descriptor in a packet that is cut: both ends of a pipe are closed afterwards.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let fds = [writer.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let long = [0_u8; 64];
        rustix::net::sendmsg(
            &keeper,
            &[IoSlice::new(&long)],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
        drop(writer);
        assert!(matches!(
            worker.receive_device(SOON),
            Err(HandoverError::Malformed)
        ));
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
    }
}
