// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets with descriptors (`SCM_RIGHTS`), between processes that trust one another: how a supervisor and its
//! daemons hand the device and anonymous fds to each other. `SOCK_SEQPACKET`, so that a packet arrives as a
//! whole or not at all.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

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

/// A packet carries no more descriptors.
pub const MOST_FDS: usize = 8;

/// What was received.
#[derive(Debug)]
pub struct Packet {
    /// Empty if the other side has ended.
    pub bytes: Vec<u8>,
    /// Close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// There was more of either.
    pub is_cut: bool,
}

/// Both ends, close-on-exec.
///
/// # Errors
///
/// What `socketpair` says: `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Sends a packet with at most [`MOST_FDS`] descriptors, which the sender keeps as well.
///
/// # Errors
///
/// `EPIPE`, and no signal, if the other side has ended; `TOOMANYREFS` for more descriptors; what `sendmsg`
/// says else.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .map(drop)
}

/// Receives a packet of at most `longest` bytes; waits for one unless the socket is non-blocking.
///
/// # Errors
///
/// `EAGAIN` if the socket is non-blocking and there is none; what `recvmsg` says else.
pub fn receive(socket: impl AsFd, longest: usize) -> Result<Packet, Errno> {
    let mut bytes = vec![0; longest];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    // Descriptors first, so that they are closed whatever else is wrong.
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(received.bytes);
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    Ok(Packet {
        bytes,
        fds,
        is_cut: received.flags.intersects(cut),
    })
}
