// SPDX-License-Identifier: GPL-2.0

//! What one opening of the device goes through: it is set up, bound, gone.
//!
//! Each file descriptor, the device's and each anonymous one, is a [`Pin`]; the last pin to go withdraws the cache.

use crate::cache::setup::Setup;
use crate::cache::Cache;
use crate::daemon::Device;
use crate::errno::Errno;
use crate::kcompat::delayed_work::DelayedWork;
use crate::object::Object;
use crate::ondemand::engine::Engine;
use crate::vfs::cred::is_admin;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::Mutex;

/// The life of what a daemon has opened.
pub(super) enum Life {
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
    pub(super) life: Mutex<Life>,
    engine: Arc<Engine<Object>>,
    /// Looks whether the cache wants culling still.
    #[pin]
    pub(super) look: DelayedWork<Daemon, LOOK>,
    /// File descriptors: the device's, and anonymous ones.
    pins: AtomicUsize,
    /// What `debug` asked for.
    pub(super) debug: AtomicU32,
}

/// The work item of the look at the space.
pub(super) const LOOK: u64 = 0;

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
    /// Nothing is set up.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(device: &'static Device) -> Result<Arc<Self>> {
        let engine = Engine::new(&device.reopen, &device.stops)?;
        Arc::pin_init(
            pin_init!(Self {
                device,
                life <- new_mutex!(Life::Setup(Setup::default()), "cachefiles_daemon"),
                engine,
                look <- DelayedWork::new(&device.commit),
                pins: AtomicUsize::new(0),
                debug: AtomicU32::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// One more file descriptor.
    pub(super) fn pin(daemon: &Arc<Self>) -> Pin {
        daemon.pins.fetch_add(1, Ordering::Relaxed);
        Pin(daemon.clone())
    }

    /// The daemon's request table.
    pub(super) fn engine(&self) -> &Arc<Engine<Object>> {
        &self.engine
    }

    /// Whether the cache wants culling, as it was last seen. If so it is looked at again soon. Does not sleep.
    pub(super) fn wants_culling(self: &Arc<Self>) -> bool {
        let wants = self.engine.pollers().wants_culling();
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
    pub(super) fn bound(&self) -> Result<Arc<Cache>> {
        match &*self.life.lock() {
            Life::Bound(cache) => Ok(cache.clone()),
            _ => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    /// The bound cache, for a command about what is in it; `EIO` without one.
    pub(super) fn in_service(&self) -> Result<Arc<Cache>> {
        self.bound().map_err(|_| {
            pr_err!("there is no cache yet\n");
            EIO
        })
    }

    /// `bind ondemand`. If it fails, the set-up is as it was before. Asks for the right that `open`
    /// asks for: the store is accessed with the binder's rights, or those of who owns the directory.
    pub(super) fn bind(&self) -> Result {
        if !is_admin() {
            return Err(EPERM);
        }
        let mut life = self.life.lock();
        let Life::Setup(setup) = &mut *life else {
            pr_err!("the cache is bound already\n");
            return Err(EBUSY);
        };
        self.engine.set_timeout(setup.options.timeout);
        self.engine.set_batch(setup.options.batch);
        let cache = Cache::bind(&self.engine, &self.device.commit, setup)?;
        *life = Life::Bound(cache);
        Ok(())
    }
}
