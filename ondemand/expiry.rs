// SPDX-License-Identifier: GPL-2.0

//! The deadline work: ends the requests that no daemon has answered in time.
//!
//! One delayed work a daemon, queued for the time at which the oldest request is due. It runs on the
//! module's own workqueue, and only looks: whatever has ended meanwhile is not there any more. Time is
//! counted in jiffies, which stand still while the machine is suspended.

use crate::daemon::Daemon;
use crate::daemon::EXPIRY;
use crate::kcompat::delayed_work::impl_has_delayed_work;
use crate::kcompat::delayed_work::DelayedWorkItem;
use crate::kcompat::time::jiffies;
use crate::stop_points::Place;
use kernel::sync::Arc;

impl_has_delayed_work! {
    impl HasDelayedWork<EXPIRY> for Daemon { self.expiry }
}

impl DelayedWorkItem<EXPIRY> for Daemon {
    fn run(daemon: Arc<Daemon>) {
        daemon.stop_at(Place::Expiry);
        let engine = daemon.engine();
        loop {
            let now = jiffies();
            let next = engine.run(|table, fx| {
                let next = table.expire(now, fx);
                // Under the lock, so that whoever kills the table finds the work queued, or never.
                if let Some(due) = next.filter(|due| *due > now && !table.is_dead()) {
                    daemon.expire_at(due);
                }
                next
            });
            match next {
                Some(due) if due <= now => {}
                _ => return,
            }
        }
    }
}
