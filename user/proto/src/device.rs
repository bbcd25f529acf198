// SPDX-License-Identifier: MIT OR Apache-2.0

//! The device itself: open, commands out, messages in.

use std::ops::Range;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::command::Command;
use crate::error::Error;
use crate::error::Result;
use crate::message::Message;
use crate::packet::first_message;
use crate::packet::Packet;
use crate::packet::MAX_MESSAGE_LEN;

/// The major number of all misc devices.
const MISC_MAJOR: u32 = 10;

/// An open `/dev/cachefiles`: one cache.
///
/// The cache lives as long as this descriptor (or a copy of it in another process) is open; when
/// the last one closes, in-flight requests end with `EIO`. All methods take `&self`: threads may
/// share one device.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
}

/// Room for the messages of one `read`; reusable. With [`Command::Batch`] it may hold messages that were
/// not taken out of it yet: they are this thread's, and to drop it then would leave the descriptors of
/// OPENs open.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8; BUFFER_LEN]>,
    /// What was read and not taken.
    unread: Range<usize>,
}

/// 256 READs and any message, or as many OPENs with keys of usual length.
const BUFFER_LEN: usize = 16 * MAX_MESSAGE_LEN;

impl Buffer {
    /// A buffer that any message fits into.
    #[must_use]
    pub fn new() -> Self {
        Buffer {
            bytes: Box::new([0; BUFFER_LEN]),
            unread: 0..0,
        }
    }

    /// Whether all that was read was taken. If not, there may be nothing to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// The next message that was read already.
    fn take(&mut self) -> Result<Option<Message>> {
        if self.unread.is_empty() {
            return Ok(None);
        }
        let unread = std::mem::take(&mut self.unread);
        // What does not tell where it ends hides all that follows.
        let bytes = first_message(&self.bytes[unread.clone()])?;
        self.unread = unread.start + bytes.len()..unread.end;
        let packet = Packet::try_from(bytes)?;
        // SAFETY: The packet was read from the device, and its bytes are passed by: it is turned
        // into one message, here.
        Ok(Some(unsafe { Message::from_packet(&packet) }))
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

/// What a device is, or should be, ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// `EPOLLIN`: a message can be read.
    pub message: bool,
    /// `EPOLLOUT`: the cache wants to be culled.
    pub cull: bool,
    /// `EPOLLERR`: the cache died. Always reported, asked for or not.
    pub dead: bool,
}

impl Readiness {
    /// Wait for a message only.
    pub const MESSAGE: Readiness = Readiness {
        message: true,
        cull: false,
        dead: false,
    };
}

impl Device {
    /// Where the device is.
    pub const DEFAULT_PATH: &'static str = "/dev/cachefiles";

    /// Opens the device, close-on-exec: this creates a cache, which is then set up by commands.
    ///
    /// # Errors
    ///
    /// [`Error::OpenDevice`] (`ENOENT` without the module, `EPERM`, `EBUSY` while another cache
    /// lives), [`Error::NotTheDevice`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::OpenDevice {
                path: path.to_owned(),
                errno,
            })?;
        Self::from_owned_fd(fd)
    }

    /// Takes over a device that was opened elsewhere, as a daemon does after a failover.
    ///
    /// # Errors
    ///
    /// [`Error::NotTheDevice`] unless `fd` is a misc character device; [`Error::Stat`].
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self> {
        let stat = rustix::fs::fstat(&fd).map_err(Error::Stat)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
            return Err(Error::NotTheDevice("no character device"));
        }
        if rustix::fs::major(stat.st_rdev) != MISC_MAJOR {
            return Err(Error::NotTheDevice("no misc device"));
        }
        Ok(Device { fd })
    }

    /// Takes over anything that speaks the protocol, such as a socket with a fake kernel behind.
    ///
    /// # Safety
    ///
    /// Every OPEN read from `fd` names a descriptor of this process that is open and owned by
    /// nobody else: [`Device::read_message`] takes it over.
    #[must_use]
    pub unsafe fn from_owned_fd_unchecked(fd: OwnedFd) -> Self {
        Device { fd }
    }

    /// Gives the descriptor back.
    #[must_use]
    pub fn into_owned_fd(self) -> OwnedFd {
        self.fd
    }

    /// Writes one command.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] if the command has no textual form; [`Error::Command`] if the kernel
    /// refuses it.
    pub fn send(&self, command: &Command) -> Result<()> {
        let line = command.encode()?;
        self.write_bytes(&line)
            .map(drop)
            .map_err(|errno| Error::Command {
                command: command.to_string(),
                errno,
            })
    }

    /// Writes bytes as they are: for tools that must be able to say the wrong thing.
    ///
    /// # Errors
    ///
    /// What `write` says.
    pub fn write_bytes(&self, bytes: &[u8]) -> std::result::Result<usize, Errno> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, bytes))
    }

    /// The next message, of those that are in `buffer` already or read now, or `None` when there is
    /// none to deliver. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::ReadDevice`] (`EIO`: the cache is dead; `EMFILE`: raise the limit or close
    /// something, the OPEN waits), [`Error::Decode`] for what is no message.
    pub fn read_message(&self, buffer: &mut Buffer) -> Result<Option<Message>> {
        if let Some(message) = buffer.take()? {
            return Ok(Some(message));
        }
        match self.read_bytes(&mut buffer.bytes[..]) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(None),
            Ok(len) => buffer.unread = 0..len,
            Err(errno) => return Err(Error::ReadDevice(errno)),
        }
        buffer.take()
    }

    /// Reads bytes as they are, at most as many messages as one `read` gives: for tools that test buffer sizes.
    ///
    /// The descriptor that an OPEN carries belongs to the caller from then on.
    ///
    /// # Errors
    ///
    /// What `read` says.
    pub fn read_bytes(&self, buffer: &mut [u8]) -> std::result::Result<usize, Errno> {
        rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer))
    }

    /// Waits until the device is ready for what is asked, or dead, or `timeout` has passed
    /// (`None`: no limit). A signal ends the wait early with nothing ready.
    ///
    /// # Errors
    ///
    /// [`Error::Poll`].
    pub fn wait(&self, wanted: Readiness, timeout: Option<Duration>) -> Result<Readiness> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, wanted.message);
        events.set(PollFlags::OUT, wanted.cull);
        // A time-out too long for the kernel is none.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = [PollFd::new(&self.fd, events)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Readiness::default()),
            Err(errno) => return Err(Error::Poll(errno)),
        }
        let found = fds[0].revents();
        Ok(Readiness {
            message: found.contains(PollFlags::IN),
            cull: found.contains(PollFlags::OUT),
            dead: found.intersects(PollFlags::ERR | PollFlags::HUP),
        })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::AddressFamily;
    use rustix::net::SocketFlags;
    use rustix::net::SocketType;

    use super::*;
    use crate::packet::Payload;
    use crate::OpenAnswer;

    /// A device whose kernel is the other end of a socket.
    fn fake() -> (Device, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, kernel) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .unwrap();
        // SAFETY: The tests send OPENs only with descriptors that they gave up.
        let device = unsafe { Device::from_owned_fd_unchecked(ours) };
        (device, kernel)
    }

    #[test]
    fn other_files_are_no_device() {
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(
            Device::from_owned_fd(file.into()),
            Err(Error::NotTheDevice("no character device"))
        ));
        assert!(matches!(
            Device::open("/dev/null"),
            Err(Error::NotTheDevice("no misc device"))
        ));
        let error = Device::open("/nonexistent").unwrap_err();
        assert_eq!(error.errno(), Some(Errno::NOENT));
    }

    #[test]
    fn a_message_takes_over_its_descriptor() {
        use std::os::fd::IntoRawFd;

        let (device, kernel) = fake();
        let mut buffer = Buffer::new();
        assert!(device.read_message(&mut buffer).unwrap().is_none());

        let raw = tempfile::tempfile().unwrap().into_raw_fd();
        let packet = Packet {
            msg_id: 3,
            object_id: 4,
            payload: Payload::Open {
                fd: raw,
                flags: 0,
                volume_key: b"erofs,v",
                cookie_key: b"\xff",
            },
        };
        rustix::io::write(&kernel, &packet.encode()).unwrap();
        let soon = Some(Duration::from_secs(5));
        assert_eq!(
            device.wait(Readiness::MESSAGE, soon).unwrap(),
            Readiness::MESSAGE
        );
        let Some(Message::Open(open)) = device.read_message(&mut buffer).unwrap() else {
            panic!("no OPEN");
        };
        assert_eq!((open.msg_id, open.object_id), (3, 4));
        assert_eq!(open.volume_key, b"erofs,v");
        assert_eq!(open.cookie_key, b"\xff");
        drop(open.file);

        let answer = OpenAnswer::Error(Errno::NOENT);
        device.send(&Command::Copen { msg_id: 3, answer }).unwrap();
        let mut line = [0; 64];
        let len = rustix::io::read(&kernel, &mut line).unwrap();
        assert_eq!(&line[..len], b"copen 3,-2");
    }

    #[test]
    fn a_refused_command_names_itself() {
        let (device, kernel) = fake();
        drop(kernel);
        let error = device.send(&Command::Restore).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::PIPE));
        assert!(error.to_string().contains("\"restore\""), "{error}");
    }
}
