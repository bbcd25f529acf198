// SPDX-License-Identifier: GPL-2.0

//! `/dev/cachefiles`: one daemon, one cache.
//!
//! The device is held by one daemon at a time, from `open` until the last of its file descriptors
//! is closed, the device's or an anonymous one. Each of them is a [`Pin`]; the last pin to go
//! withdraws the cache.
//!
//! Locking: `life` is the daemon mutex. It serialises the commands that set a cache up. Commands
//! about a bound cache take it to look the cache up; they do not hold it, so that one answer that waits for the disk does not stop the others. `read` does not
//! take it at all. Order: daemon mutex -> an object's backing -> a volume's directories -> the table.

#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod command;
mod execute;
mod life;
mod look;

use self::life::Daemon;
use self::life::Pin;
use crate::errno::Errno;
use crate::kcompat::miscdevice::MiscDevice;
use crate::kcompat::poll::mask;
use crate::kcompat::poll::PollTable;
use crate::kcompat::workqueue::OwnedQueue;
use crate::ondemand::device_read::Buffer;
use crate::stop_points::Place;
use crate::stop_points::Stops;
use crate::vfs::cred::is_admin;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::uaccess::UserPtr;
use kernel::uaccess::UserSliceReader;

/// What belongs to the device as long as the module is loaded.
pub(crate) struct Device {
    /// Whether a daemon, or an fd that it left behind, holds it.
    held: AtomicBool,
    /// Where reopen work runs, and the work of the deadlines.
    reopen: OwnedQueue,
    /// Where early commits run, and what else waits for the disk.
    commit: OwnedQueue,
    stops: Stops,
}

impl Device {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Device {
            held: AtomicBool::new(false),
            reopen: OwnedQueue::new_unbound(kernel::c_str!("cachefiles_reopen"))?,
            commit: OwnedQueue::new_freezable(kernel::c_str!("cachefiles_commit"))?,
            stops: Stops::new()?,
        })
    }

    /// Who is to stop where.
    #[cfg(ondemand_stop_points)]
    pub(crate) fn stops(&self) -> &Stops {
        &self.stops
    }
}

/// Commands of up to so many bytes need no memory. An answer is one, with the longest token: if it failed for want of memory,
/// those whom it is for would wait on.
const SHORT_COMMAND: usize = 192;

/// The device's operations.
pub(crate) struct CachefilesDevice;

/// An open file of the device.
pub(crate) struct DeviceFile {
    daemon: Arc<Daemon>,
    /// Dropped last.
    _pin: Pin,
}

impl MiscDevice for CachefilesDevice {
    type Data = Device;
    type Ptr = KBox<DeviceFile>;

    fn open(device: &'static Device) -> Result<KBox<DeviceFile>> {
        if !is_admin() {
            return Err(EPERM);
        }
        if device.held.swap(true, Ordering::Acquire) {
            return Err(EBUSY);
        }
        let daemon =
            Daemon::new(device).inspect_err(|_| device.held.store(false, Ordering::Release))?;
        // From here on the pin gives the device back.
        let _pin = Daemon::pin(&daemon);
        Ok(KBox::new(DeviceFile { daemon, _pin }, GFP_KERNEL)?)
    }

    fn release(file: KBox<DeviceFile>) {
        let engine = file.daemon.engine();
        engine.flush();
        engine.stops().stop_at(Place::DeviceClosed);
        drop(file);
    }

    fn read(file: &DeviceFile, buffer: UserPtr, len: usize) -> Result<usize> {
        let daemon = &file.daemon;
        let buffer = Buffer { start: buffer, len };
        daemon.engine().deliver(buffer, || Daemon::pin(daemon))
    }

    fn write(file: &DeviceFile, mut buffer: UserSliceReader) -> Result<usize> {
        let len = buffer.len();
        if len > command::MAX_COMMAND {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let mut short = [0; SHORT_COMMAND];
        if let Some(text) = short.get_mut(..len) {
            buffer.read_slice(text)?;
            file.daemon.execute(command::parse(text)?)?;
        } else {
            let mut text = KVec::new();
            buffer.read_all(&mut text, GFP_KERNEL)?;
            file.daemon.execute(command::parse(&text)?)?;
        }
        Ok(len)
    }

    fn poll<'a>(file: &'a DeviceFile, table: &PollTable<'a>) -> u32 {
        let engine = file.daemon.engine();
        table.register_wait(engine.pollers().queue());
        let readable = if engine.readable() { mask::IN } else { 0 };
        let wants_culling = if file.daemon.wants_culling() {
            mask::OUT
        } else {
            0
        };
        readable | wants_culling
    }
}
