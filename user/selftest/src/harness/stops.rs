// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stop points: threads of the kernel wait at a named place until the test lets them go on.
//!
//! Who is to be stopped in a call of the daemon is another thread of the test: see [`Aside`]. It shares
//! the test's descriptors, so a call that holds the device keeps it open, whatever the test closes.

use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;
use std::thread;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Device;
use cachefiles_proto::Message;
use cachefiles_proto::Packet;
use cachefiles_proto::Payload;
use cachefiles_proto::MAX_MESSAGE_LEN;
use ondemand_deadline::Deadline;
use rustix::io::Errno;

use super::check::skip;
use super::wait::eventually;
use super::wait::readable;
use super::wait::received;
use super::wait::until;
use super::wait::SOON;
use super::Daemon;

/// The device that tells threads where to stop.
pub const DEVICE: &str = "/dev/cachefiles_stop_points";

/// Who is to stop where. When this is dropped everybody goes on.
#[derive(Debug)]
pub struct Stops(File);

impl Stops {
    /// Nobody stops yet.
    ///
    /// # Errors
    ///
    /// Skips the test if the module was built without stop points.
    pub fn open() -> Result<Self> {
        match File::options().read(true).write(true).open(DEVICE) {
            Ok(file) => Ok(Stops(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => skip(format!(
                "no {DEVICE}: the module is built without stop points"
            )),
            Err(error) => Err(error).context(DEVICE),
        }
    }

    fn command(&self, word: &str, place: &str) -> Result<()> {
        (&self.0)
            .write_all(format!("{word} {place}").as_bytes())
            .with_context(|| format!("{word} {place}"))
    }

    /// The next thread that comes to `place` waits there.
    ///
    /// # Errors
    ///
    /// There is no such place.
    pub fn stop(&self, place: &str) -> Result<()> {
        self.command("stop", place)
    }

    /// Whoever waits at `place` goes on, and nobody is stopped there.
    ///
    /// # Errors
    ///
    /// There is no such place.
    pub fn go(&self, place: &str) -> Result<()> {
        self.command("go", place)
    }

    /// Whether a thread waits at `place`.
    ///
    /// # Errors
    ///
    /// What `read` says.
    pub fn parked(&self, place: &str) -> Result<bool> {
        let mut list = [0; 4096];
        let len = (&self.0).read(&mut list)?;
        let list = String::from_utf8_lossy(&list[..len]);
        let parked = format!("{place} parked ");
        Ok(list.lines().any(|line| line.starts_with(&parked)))
    }

    /// Waits until a thread waits at `place`.
    ///
    /// # Errors
    ///
    /// None does within [`SOON`].
    pub fn wait_parked(&self, place: &str) -> Result<()> {
        let mut deadline = Deadline::after(SOON);
        // With nobody parked `poll` waits; otherwise the list is looked at again and again.
        readable([&self.0], &mut deadline)?;
        until(&format!("somebody stops at {place}"), &mut deadline, || {
            self.parked(place)
        })
    }
}

/// Lets everybody go on, whoever has stopped them. A thread that is parked keeps its process, and with
/// it the process's file of the device: so whoever ends a test says it from outside.
pub fn release_all() {
    // Without the device nobody is stopped.
    drop(File::open(DEVICE));
}

/// What another thread of the test does: a call of the daemon that is to be stopped.
#[derive(Debug)]
pub struct Aside<T> {
    what: &'static str,
    result: mpsc::Receiver<T>,
}

impl<T: Send + 'static> Aside<T> {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// No thread could be made.
    pub fn start(what: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Result<Self> {
        let (send, result) = mpsc::channel();
        // Nobody joins it: a thread that is parked would keep the test from telling so.
        thread::Builder::new().spawn(move || {
            // Nobody listens any more if the test has failed.
            let _ = send.send(work());
        })?;
        Ok(Aside { what, result })
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// It has not ended within [`SOON`].
    pub fn end(&self) -> Result<T> {
        let ended = received(&self.result, SOON);
        ended.with_context(|| format!("{} has not ended", self.what))
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    ///
    /// It has.
    pub fn expect_running(&self) -> Result<()> {
        let running = matches!(self.result.try_recv(), Err(mpsc::TryRecvError::Empty));
        ensure!(running, "{} has ended already", self.what);
        Ok(())
    }
}

/// Another holder of the daemon's device.
///
/// # Errors
///
/// No descriptor is left.
pub fn second(daemon: &Daemon) -> Result<Device> {
    let fd = daemon.device.as_fd().try_clone_to_owned()?;
    Ok(Device::from_owned_fd(fd)?)
}

/// A `read` of the device by another thread, which begins when there is a message.
#[derive(Debug)]
pub struct Fetch {
    thread: Aside<Result<Vec<u8>, Errno>>,
    /// Where in this process's memory the message goes.
    buffer: u64,
}

impl Fetch {
    /// Waits for a message, and has another thread read it.
    ///
    /// # Errors
    ///
    /// There is none within [`SOON`].
    pub fn start(daemon: &Daemon) -> Result<Self> {
        eventually("a message", SOON, || daemon.has_message())?;
        let device = second(daemon)?;
        let (send, address) = mpsc::channel();
        let thread = Aside::start("read of the device", move || {
            let mut buffer = vec![0; MAX_MESSAGE_LEN];
            // The other end waits for it.
            let _ = send.send(buffer.as_ptr().addr());
            let len = device.read_bytes(&mut buffer)?;
            buffer.truncate(len);
            Ok(buffer)
        })?;
        let buffer = received(&address, SOON).context("the second thread")?;
        Ok(Fetch {
            thread,
            buffer: u64::try_from(buffer)?,
        })
    }

    /// What the kernel has copied out while the thread is still in its call: a daemon's other threads
    /// can see it. Returns the message's id, and the descriptor's number of an OPEN.
    ///
    /// # Errors
    ///
    /// It is no message.
    pub fn copied(&self) -> Result<(u32, Option<i32>)> {
        let mut bytes = [0; MAX_MESSAGE_LEN];
        File::open("/proc/self/mem")?.read_exact_at(&mut bytes, self.buffer)?;
        // The header: msg_id, opcode, len, object_id.
        let len = u32::from_ne_bytes(*bytes[8..].first_chunk().context("short")?);
        let bytes = bytes.get(..usize::try_from(len)?).context("no message")?;
        let packet = Packet::try_from(bytes)?;
        let fd = match packet.payload {
            Payload::Open { fd, .. } => Some(fd),
            _ => None,
        };
        Ok((packet.msg_id, fd))
    }

    /// What the thread has got.
    ///
    /// # Errors
    ///
    /// It has not ended within [`SOON`]; `read` failed.
    pub fn end(self) -> Result<Option<Message>> {
        let bytes = self.thread.end()?.context("read of the device")?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let packet = Packet::try_from(&bytes[..])?;
        // SAFETY: The thread has just read the packet, and it is turned into one message here.
        Ok(Some(unsafe { Message::from_packet(&packet) }))
    }
}
