// SPDX-License-Identifier: GPL-2.0

//! The deadline work: ends the requests that no daemon has answered in time.
//!
//! One delayed work a table, queued for the time at which the oldest request is due. It runs on the
//! module's own workqueue, and only looks: whatever has ended meanwhile is not there any more. Time is
//! counted in jiffies, which stand still while the machine is suspended.

use crate::kcompat::delayed_work::impl_has_delayed_work;
use crate::kcompat::delayed_work::DelayedWorkItem;
use crate::kcompat::time::jiffies;
use crate::ondemand::client::Client;
use crate::ondemand::engine::Engine;
use crate::ondemand::engine::EXPIRY;
use crate::stop_points::Place;
use kernel::sync::Arc;

impl_has_delayed_work! {
    impl{C: Client} HasDelayedWork<EXPIRY> for Engine<C> { self.expiry }
}

impl<C: Client> DelayedWorkItem<EXPIRY> for Engine<C> {
    fn run(engine: Arc<Self>) {
        engine.stops().stop_at(Place::Expiry);
        loop {
            let now = jiffies();
            let next = engine.run(|table, fx| {
                let next = table.expire(now, fx);
                // Under the lock, so that whoever kills the table finds the work queued, or never.
                if let Some(due) = next.filter(|due| *due > now && !table.is_dead()) {
                    engine.expire_at(due);
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
