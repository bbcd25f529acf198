// SPDX-License-Identifier: GPL-2.0

//! With `fill buffered`: has what was filled through the page cache written to the disk soon, and the
//! memory given back. Whoever it was filled for has read it by then.
//!
//! The work is shut when the object is not bound any more: from then on it is not queued.

use crate::kcompat::delayed_work::impl_has_delayed_work;
use crate::kcompat::delayed_work::DelayedWork;
use crate::kcompat::delayed_work::DelayedWorkItem;
use crate::kcompat::time::seconds_in_jiffies;
use crate::object::Object;
use crate::object::SETTLE;
use crate::stop_points::Place;
use core::sync::atomic::Ordering;
use kernel::sync::Arc;

/// Seconds between a fill and its way to the disk: many small fills make few large writes.
const AFTER: u32 = 1;

impl_has_delayed_work! {
    impl HasDelayedWork<SETTLE> for Object { self.settle }
}

impl DelayedWorkItem<SETTLE> for Object {
    fn run(object: Arc<Object>) {
        object.store.stops().stop_at(Place::SettleWork);
        // What is filled from now on queues it again.
        object.unsettled.store(false, Ordering::Relaxed);
        let Ok(current) = object.current() else {
            return;
        };
        let settled = object
            .store
            .cred()
            .run(|| current.contents.settle(&current.file));
        object.warn_if_failed("writing filled data to the disk", settled);
    }
}

impl Object {
    /// Notes that data was put into the page cache, by a fill or a read.
    pub(crate) fn uses_memory(self: &Arc<Self>) {
        if self.unsettled.swap(true, Ordering::Relaxed) {
            return;
        }
        self.store.stops().stop_at(Place::SettleWanted);
        DelayedWork::<_, SETTLE>::enqueue(self, seconds_in_jiffies(AFTER));
    }

    /// The object is not bound any more: nothing is queued from now on, nothing waits, and nothing runs.
    pub(super) fn stop_settling(self: &Arc<Self>) {
        DelayedWork::<_, SETTLE>::shut_and_wait(self);
    }
}
