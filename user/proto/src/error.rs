// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong: one variant a failing system call, each with what it was about.

use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

/// The result of everything in this crate that makes a system call.
pub type Result<T> = std::result::Result<T, Error>;

/// A system call failed, or the kernel sent or was to be sent something malformed.
#[derive(Debug, Error)]
pub enum Error {
    /// `open` failed. `ENOENT`: no cachefiles module; `EPERM`: no `CAP_SYS_ADMIN` in the initial
    /// namespace; `EBUSY`: another daemon, or a descriptor that one left behind, holds the cache.
    #[error("cannot open {}: {errno}", path.display())]
    OpenDevice {
        /// Path of the device.
        path: PathBuf,
        /// What `open` said.
        errno: Errno,
    },
    /// A descriptor that should be `/dev/cachefiles` is none.
    #[error("the descriptor is no /dev/cachefiles: {0}")]
    NotTheDevice(&'static str),
    /// `fstat` of the device failed.
    #[error("cannot examine the device: {0}")]
    Stat(Errno),
    /// `poll` of the device failed.
    #[error("cannot wait for the device: {0}")]
    Poll(Errno),
    /// `read` of the device failed. `EIO`: the cache is dead; `EMFILE`: no descriptor is free for
    /// an OPEN, which stays queued; `EMSGSIZE`: the buffer is too small, the message stays queued.
    #[error("cannot read from the device: {0}")]
    ReadDevice(Errno),
    /// `write` of a command failed. `EIO`: the cache is dead; `EINVAL`: a wrong argument, or a
    /// `copen` for no open request; `EOPNOTSUPP`: a command that this mode lacks.
    #[error("the kernel refused {command:?}: {errno}")]
    Command {
        /// The command, as text.
        command: String,
        /// What `write` said.
        errno: Errno,
    },
    /// A command could not be written as text; nothing was sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The kernel sent something that is no message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// `pwrite` to an anonymous file failed. `EINVAL`, `ENOBUFS`: not aligned, or the object is
    /// not ready or was withdrawn; `ENOSPC`: the cache's file system is full.
    #[error("cannot write {len} bytes at {offset} into the cache: {errno}")]
    WriteObject {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes were left to write.
        len: usize,
        /// What `pwrite` said.
        errno: Errno,
    },
    /// `pwrite` to an anonymous file wrote less than it was given and cannot be continued, since
    /// it stopped inside of a block.
    #[error("wrote only {written} of {len} bytes at {offset} into the cache")]
    ShortWrite {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes were to be written.
        len: usize,
        /// How many were.
        written: usize,
    },
    /// `CACHEFILES_IOC_READ_COMPLETE` failed. `EINVAL`: there is no such READ of this object, for
    /// one because its reader was killed.
    #[error("cannot complete READ {msg_id}: {errno}")]
    ReadComplete {
        /// The id of the READ.
        msg_id: u32,
        /// What `ioctl` said.
        errno: Errno,
    },
    /// `fcntl` with `F_SETFD` failed.
    #[error("cannot set close-on-exec: {0}")]
    CloseOnExec(Errno),
    /// `lseek` with `SEEK_DATA` or `SEEK_HOLE` failed.
    #[error("cannot seek from {offset} in a cache file: {errno}")]
    Seek {
        /// Where the search started, in bytes.
        offset: u64,
        /// What `lseek` said.
        errno: Errno,
    },
}

impl Error {
    /// What the failing system call said, if it was one that failed.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::OpenDevice { errno, .. }
            | Error::Stat(errno)
            | Error::Poll(errno)
            | Error::ReadDevice(errno)
            | Error::CloseOnExec(errno)
            | Error::Command { errno, .. }
            | Error::WriteObject { errno, .. }
            | Error::ReadComplete { errno, .. }
            | Error::Seek { errno, .. } => Some(*errno),
            Error::NotTheDevice(_)
            | Error::Encode(_)
            | Error::Decode(_)
            | Error::ShortWrite { .. } => None,
        }
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The message ends too early.
    #[error("message truncated: {need} bytes needed, {have} left")]
    Truncated {
        /// Bytes that the next field takes.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// The header's length is not that of the message.
    #[error("header says {field} bytes, the message has {have}")]
    LengthField {
        /// `cachefiles_msg::len`
        field: u32,
        /// Bytes in the message.
        have: usize,
    },
    /// An opcode that this crate does not know.
    #[error("unknown opcode {0}")]
    UnknownOpcode(u32),
    /// A CLOSE or READ with a payload of the wrong size.
    #[error("a payload of {have} bytes does not fit opcode {opcode}")]
    PayloadLength {
        /// The opcode.
        opcode: u32,
        /// Bytes in the payload.
        have: usize,
    },
    /// The keys of an OPEN do not add up to its payload.
    #[error("keys of {volume} and {cookie} bytes do not fill {have} bytes")]
    KeyLengths {
        /// `cachefiles_open::volume_key_size`
        volume: u32,
        /// `cachefiles_open::cookie_key_size`
        cookie: u32,
        /// Bytes that hold both.
        have: usize,
    },
    /// The volume key does not end with a NUL.
    #[error("the volume key does not end with a NUL")]
    VolumeKeyNul,
    /// The descriptor of an OPEN is negative.
    #[error("{0:#x} is no descriptor")]
    BadDescriptor(u32),
}

/// Why a command cannot be written as text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// An argument is empty; the kernel would take the command for one without argument.
    #[error("{0}: empty argument")]
    Empty(&'static str),
    /// An argument has a NUL or a newline, at which the kernel would refuse or cut it.
    #[error("{0}: an argument cannot hold a NUL or a newline")]
    Separator(&'static str),
    /// An argument starts with white space, which the kernel would skip.
    #[error("{0}: an argument cannot start with white space")]
    LeadingSpace(&'static str),
    /// A number is out of its range.
    #[error("{0}: {1} is out of range")]
    Range(&'static str, u64),
    /// The command is longer than [`MAX_COMMAND_LEN`](crate::MAX_COMMAND_LEN).
    #[error("{0}: command of {1} bytes is too long")]
    TooLong(&'static str, usize),
}
