// SPDX-License-Identifier: GPL-2.0

//! `/dev/cachefiles`: one daemon, one cache.
//!
//! The device is held by one daemon at a time, from `open` until the last of its file descriptors
//! is closed, the device's or an anonymous one. Each of them is a [`Pin`]; the last pin to go
//! withdraws the cache.
//!
//! Locking: `life` is the daemon mutex. It serialises the commands that set a cache up. Commands
//! about a bound cache take it to look the cache up; they do not hold it, so that one answer that waits for the disk does not stop the others. `read` does not
//! take it at all. Order: daemon mutex -> an object's store -> a volume's directories -> the table.

#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod command;
mod look;

use crate::cache::setup::Setup;
use crate::cache::Cache;
use crate::daemon::command::Command;
use crate::daemon::command::CopenAnswer;
use crate::daemon::command::Mode;
use crate::errno::Errno;
use crate::kcompat::delayed_work::DelayedWork;
use crate::kcompat::fs::File;
use crate::kcompat::miscdevice::MiscDevice;
use crate::kcompat::poll::mask;
use crate::kcompat::poll::PollTable;
use crate::kcompat::time::jiffies;
use crate::kcompat::workqueue::OwnedQueue;
use crate::ondemand::device_read::Buffer;
use crate::ondemand::engine::Engine;
#[cfg(ondemand_stop_points)]
use crate::stop_points::control::Stops;
use crate::stop_points::Place;
use crate::store::limits::Level;
use crate::vfs::cred::is_admin;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::Mutex;
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
    #[cfg(ondemand_stop_points)]
    stops: Arc<Stops>,
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
            #[cfg(ondemand_stop_points)]
            stops: Stops::new()?,
        })
    }

    /// Who is to stop where.
    #[cfg(ondemand_stop_points)]
    pub(crate) fn stops(&self) -> &Arc<Stops> {
        &self.stops
    }
}

/// The life of what a daemon has opened.
enum Life {
    /// Being set up: `dir`, `tag` and the limits.
    Setup(Setup),
    /// `bind` has succeeded.
    Bound(Arc<Cache>),
    /// The last file descriptor was closed.
    Gone,
}

/// One opening of the device.
#[pin_data]
pub(crate) struct Daemon {
    device: &'static Device,
    #[pin]
    life: Mutex<Life>,
    #[pin]
    engine: Engine,
    /// Ends what nobody answers in time ([`expiry`](crate::ondemand::expiry)).
    #[pin]
    pub(crate) expiry: DelayedWork<Daemon, EXPIRY>,
    /// Looks whether the cache wants culling still.
    #[pin]
    look: DelayedWork<Daemon, LOOK>,
    /// File descriptors: the device's, and anonymous ones.
    pins: AtomicUsize,
    /// What `debug` asked for.
    debug: AtomicU32,
    /// The cache wants culling, which `poll` tells.
    wants_culling: AtomicBool,
}

/// The work item of the deadlines.
pub(crate) const EXPIRY: u64 = 0;
/// The work item of the look at the space.
const LOOK: u64 = 1;

/// Commands of up to so many bytes need no memory. An answer is one, with the longest token: if it failed for want of memory,
/// those whom it is for would wait on.
const SHORT_COMMAND: usize = 192;

/// `debug` bit: every command is logged.
const DEBUG_COMMANDS: u32 = 1;

/// One file descriptor's share in a daemon's cache. The last one to be dropped withdraws it.
pub(crate) struct Pin(Arc<Daemon>);

impl Drop for Pin {
    fn drop(&mut self) {
        if self.0.pins.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.unbind();
        }
    }
}

impl Daemon {
    fn new(device: &'static Device) -> Result<Arc<Self>> {
        let engine = Engine::new(&device.reopen)?;
        Arc::pin_init(
            pin_init!(Self {
                device,
                life <- new_mutex!(Life::Setup(Setup::default()), "cachefiles_daemon"),
                engine <- engine,
                expiry <- DelayedWork::new(&device.reopen),
                look <- DelayedWork::new(&device.commit),
                pins: AtomicUsize::new(0),
                debug: AtomicU32::new(0),
                wants_culling: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// One more file descriptor.
    pub(crate) fn pin(daemon: &Arc<Self>) -> Pin {
        daemon.pins.fetch_add(1, Ordering::Relaxed);
        Pin(daemon.clone())
    }

    /// The device that it has opened.
    #[cfg(ondemand_stop_points)]
    pub(crate) fn device(&self) -> &'static Device {
        self.device
    }

    /// The daemon's request table.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Has what is due at that tick ended then, never before, and up to an eighth of the wait later, as
    /// the kernel's timers are. Called under the table's lock with the table's oldest deadline; a dead
    /// table has its work queued no more.
    pub(crate) fn expire_at(self: &Arc<Self>, due: u64) {
        DelayedWork::<_, EXPIRY>::enqueue(self, due.saturating_sub(jiffies()));
    }

    /// Where early commits are queued.
    pub(crate) fn commit_queue(&self) -> &'static OwnedQueue {
        &self.device.commit
    }

    /// Notes at which level the cache's file system was seen, and wakes those who wait to cull. Of
    /// two who see different levels at once either may win, until the next one looks.
    pub(crate) fn note_level(&self, level: Level) {
        let now = self.wants_culling.load(Ordering::Relaxed);
        let wants = level.wants_culling(now);
        if wants != now && !self.wants_culling.swap(wants, Ordering::Relaxed) {
            self.engine.daemons().wake_all(mask::OUT);
        }
    }

    /// Whether the cache wants culling, as it was last seen. If so it is looked at again soon. Does not sleep.
    fn wants_culling(self: &Arc<Self>) -> bool {
        let wants = self.wants_culling.load(Ordering::Relaxed);
        if wants {
            self.look_soon();
        }
        wants
    }

    fn unbind(self: &Arc<Self>) {
        self.stop_looking();
        let life = core::mem::replace(&mut *self.life.lock(), Life::Gone);
        if let Life::Bound(cache) = life {
            cache.withdraw();
        }
        self.device.held.store(false, Ordering::Release);
    }

    /// The bound cache, for a command that only makes sense with one.
    fn bound(&self) -> Result<Arc<Cache>> {
        match &*self.life.lock() {
            Life::Bound(cache) => Ok(cache.clone()),
            _ => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    /// The bound cache, for a command about what is in it; `EIO` without one.
    fn in_service(&self) -> Result<Arc<Cache>> {
        self.bound().map_err(|_| {
            pr_err!("there is no cache yet\n");
            EIO
        })
    }

    /// Changes the set-up of a cache that is not bound yet.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is bound; what `change` says.
    fn set_up(&self, change: impl FnOnce(&mut Setup) -> Result) -> Result {
        match &mut *self.life.lock() {
            Life::Setup(setup) => change(setup),
            _ => Err(EBUSY),
        }
    }

    /// `identity on`. Of a bound cache it asks whether that was said before, as who takes the cache
    /// over needs to know.
    fn turn_identity_on(&self) -> Result {
        match &mut *self.life.lock() {
            Life::Setup(setup) => setup.identity = true,
            Life::Bound(cache) if cache.knows_tokens() => {}
            _ => return Err(EBUSY),
        }
        Ok(())
    }

    /// `bind ondemand`. If it fails, the set-up is as it was before. Asks for the right that `open`
    /// asks for: the store is accessed with the binder's rights, or those of who owns the directory.
    fn bind(daemon: &Arc<Self>) -> Result {
        if !is_admin() {
            return Err(EPERM);
        }
        let mut life = daemon.life.lock();
        let Life::Setup(setup) = &mut *life else {
            pr_err!("the cache is bound already\n");
            return Err(EBUSY);
        };
        daemon.engine.set_timeout(setup.timeout);
        daemon.engine.set_batch(setup.batch);
        let cache = Cache::bind(daemon, setup)?;
        *life = Life::Bound(cache);
        Ok(())
    }

    fn execute(this: &Arc<Self>, command: Command<'_>) -> Result {
        if this.debug.load(Ordering::Relaxed) & DEBUG_COMMANDS != 0 {
            pr_info!("command: {:?}\n", command);
        }
        match command {
            Command::Dir(path) => this.set_up(|setup| setup.set_dir(path)),
            Command::Tag(name) => this.set_up(|setup| setup.set_tag(name)),
            Command::Limit {
                resource,
                mark,
                percent,
            } => this.set_up(|setup| {
                setup.limits.set(resource, mark, percent).map_err(|errno| {
                    pr_err!("limits must keep to 0% <= stop < cull < run < 100%\n");
                    errno.into()
                })
            }),
            Command::Bind(Mode::OnDemand) => Self::bind(this),
            Command::Bind(Mode::Plain) => {
                pr_err!(
                    "only 'bind ondemand' is supported: the in-tree module has the plain mode\n"
                );
                Err(Errno::EOPNOTSUPP.into())
            }
            Command::Debug(mask) => {
                this.debug.store(mask, Ordering::Relaxed);
                Ok(())
            }
            Command::Copen { msg_id, answer } => this.copen(msg_id, answer),
            Command::Restore => {
                this.bound()?;
                this.engine.restore();
                Ok(())
            }
            Command::Timeout(seconds) => this.set_up(|setup| {
                setup.timeout = seconds;
                Ok(())
            }),
            Command::Fetch(bytes) => this.set_up(|setup| {
                setup.fetch = bytes;
                Ok(())
            }),
            Command::Batch(count) => this.set_up(|setup| {
                setup.batch = count;
                Ok(())
            }),
            Command::Fill(fill) => this.set_up(|setup| {
                setup.fill = fill;
                Ok(())
            }),
            Command::Identity => this.turn_identity_on(),
            Command::Cull(name) => this.in_service()?.cull(name),
            Command::InUse(name) => this.in_service()?.check_in_use(name),
            Command::SecurityContext(context) => {
                this.set_up(|setup| setup.set_security_context(context))
            }
        }
    }

    fn copen(&self, msg_id: u32, answer: CopenAnswer) -> Result {
        let cache = self.bound()?;
        match answer {
            CopenAnswer::Version(version) if cache.can_be_told(&version) => {
                cache.copen(msg_id, Ok(version))
            }
            CopenAnswer::Error(errno) => cache.copen(msg_id, Err(errno)),
            CopenAnswer::Version(_) | CopenAnswer::Malformed => {
                cache.copen(msg_id, Err(Errno::EINVAL))?;
                Err(EINVAL)
            }
        }
    }
}

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
        file.daemon.engine.flush();
        // The table is dead: nothing is due any more.
        DelayedWork::<_, EXPIRY>::shut(&file.daemon);
        file.daemon.stop_at(Place::DeviceClosed);
        drop(file);
    }

    fn read(file: &DeviceFile, buffer: UserPtr, len: usize) -> Result<usize> {
        file.daemon.engine.deliver(Buffer { start: buffer, len })
    }

    fn write(file: &DeviceFile, mut buffer: UserSliceReader) -> Result<usize> {
        let len = buffer.len();
        if len > command::MAX_COMMAND {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let mut short = [0; SHORT_COMMAND];
        if let Some(text) = short.get_mut(..len) {
            buffer.read_slice(text)?;
            Daemon::execute(&file.daemon, command::parse(text)?)?;
        } else {
            let mut text = KVec::new();
            buffer.read_all(&mut text, GFP_KERNEL)?;
            Daemon::execute(&file.daemon, command::parse(&text)?)?;
        }
        Ok(len)
    }

    fn poll(file: &DeviceFile, table: &PollTable<'_>, raw: &File) -> u32 {
        let engine = &file.daemon.engine;
        table.register_wait(raw, engine.daemons());
        let readable = if engine.readable() { mask::IN } else { 0 };
        let wants_culling = if file.daemon.wants_culling() {
            mask::OUT
        } else {
            0
        };
        readable | wants_culling
    }
}
