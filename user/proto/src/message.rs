// SPDX-License-Identifier: MIT OR Apache-2.0

//! A message that owns what the kernel handed over with it.

use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use crate::anon_file::AnonymousFile;
use crate::packet::Packet;
use crate::packet::Payload;

/// One request of the kernel, read by [`Device::read_message`](crate::Device::read_message).
#[derive(Debug)]
pub enum Message {
    /// An object is opened; it must be answered with [`Command::Copen`](crate::Command::Copen).
    Open(Open),
    /// An object was withdrawn; there is no answer.
    Close(Close),
    /// A range is wanted; it must end with
    /// [`AnonymousFile::read_complete`].
    Read(Read),
}

/// `CACHEFILES_OP_OPEN`: look up an object and say how large it is.
#[derive(Debug)]
pub struct Open {
    /// Names this request in the answer.
    pub msg_id: u32,
    /// Names the object in the READ and CLOSE messages that follow; new with every (re)open.
    pub object_id: u32,
    /// Where the object's data is written. Dropping it closes the object. With the C module it is
    /// inherited over `exec`: see [`AnonymousFile::set_close_on_exec`].
    pub file: AnonymousFile,
    /// The volume's key, without its NUL. From EROFS: `erofs,` and the domain or file system id.
    pub volume_key: Vec<u8>,
    /// The cookie's key, any bytes. From EROFS: the id of the image or blob.
    pub cookie_key: Vec<u8>,
    /// No flag is defined up to Linux 7.2: always 0.
    pub flags: u32,
}

/// `CACHEFILES_OP_CLOSE`: the kernel is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Names this request; nothing has to be answered.
    pub msg_id: u32,
    /// The object whose [`AnonymousFile`] is to be dropped.
    pub object_id: u32,
}

/// `CACHEFILES_OP_READ`: write a range of an object into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Names this request in [`AnonymousFile::read_complete`].
    pub msg_id: u32,
    /// The object, under the id of its last OPEN.
    pub object_id: u32,
    /// First byte wanted, a multiple of [`BLOCK_SIZE`](crate::BLOCK_SIZE).
    pub off: u64,
    /// Number of bytes wanted; the range may reach beyond the end of the object.
    pub len: u64,
}

impl Message {
    /// Takes over the descriptor that an OPEN names.
    ///
    /// # Safety
    ///
    /// `packet` was read from `/dev/cachefiles` by this process, and no other `Message` was made
    /// from it: then the kernel has just installed the descriptor, and nobody else owns it.
    #[must_use]
    pub unsafe fn from_packet(packet: &Packet<'_>) -> Self {
        let Packet {
            msg_id, object_id, ..
        } = *packet;
        match packet.payload {
            Payload::Open {
                fd,
                flags,
                volume_key,
                cookie_key,
            } => {
                // SAFETY: The caller guarantees that the descriptor is open and owned by nobody.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                Message::Open(Open {
                    msg_id,
                    object_id,
                    file: AnonymousFile::from(fd),
                    volume_key: volume_key.to_vec(),
                    cookie_key: cookie_key.to_vec(),
                    flags,
                })
            }
            Payload::Close => Message::Close(Close { msg_id, object_id }),
            Payload::Read { off, len } => Message::Read(Read {
                msg_id,
                object_id,
                off,
                len,
            }),
        }
    }

    /// The id that names this request.
    #[must_use]
    pub fn msg_id(&self) -> u32 {
        match self {
            Message::Open(open) => open.msg_id,
            Message::Close(close) => close.msg_id,
            Message::Read(read) => read.msg_id,
        }
    }

    /// The id of the object that this request is about.
    #[must_use]
    pub fn object_id(&self) -> u32 {
        match self {
            Message::Open(open) => open.object_id,
            Message::Close(close) => close.object_id,
            Message::Read(read) => read.object_id,
        }
    }
}
