// SPDX-License-Identifier: GPL-2.0

//! Looks whether a cache wants culling still: space that somebody else gave back is noticed here.
//!
//! `poll` asks for it while it shows that culling is wanted, and does not wait: the file system's answer may take
//! long, and messages do not need it. So it looks once a second at most.

use crate::daemon::life::Daemon;
use crate::daemon::life::LOOK;
use crate::kcompat::delayed_work::impl_has_delayed_work;
use crate::kcompat::delayed_work::DelayedWork;
use crate::kcompat::delayed_work::DelayedWorkItem;
use crate::kcompat::time::seconds_in_jiffies;
use kernel::sync::Arc;

/// Seconds between a `poll` and the look.
const AFTER: u32 = 1;

impl_has_delayed_work! {
    impl HasDelayedWork<LOOK> for Daemon { self.look }
}

impl DelayedWorkItem<LOOK> for Daemon {
    fn run(daemon: Arc<Daemon>) {
        if let Ok(cache) = daemon.bound() {
            // As long as the file system does not tell, nothing has changed.
            let _ = cache.store().look_at_space();
        }
    }
}

impl Daemon {
    /// Has it looked at soon. Does not sleep.
    pub(super) fn look_soon(self: &Arc<Self>) {
        DelayedWork::<_, LOOK>::enqueue(self, seconds_in_jiffies(AFTER));
    }

    /// Nobody looks any more.
    pub(super) fn stop_looking(self: &Arc<Self>) {
        DelayedWork::<_, LOOK>::shut_and_wait(self);
    }
}
