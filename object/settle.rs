// SPDX-License-Identifier: GPL-2.0

//! With `fill buffered`: has what was filled through the page cache written to the disk soon, and the
//! memory given back. Whoever it was filled for has read it by then.
//!
//! Work is queued only while the object is bound, and cancelled when that ends; so none waits for
//! its time when the module is unloaded.

use crate::kcompat::delayed_work::impl_has_delayed_work;
use crate::kcompat::delayed_work::DelayedWork;
use crate::kcompat::time::seconds_in_jiffies;
use crate::object::Object;
use crate::object::SETTLE;
use crate::vfs::page_cache;
use core::sync::atomic::Ordering;
use kernel::sync::Arc;
use kernel::workqueue::WorkItem;

/// Seconds between a fill and its way to the disk: many small fills make few large writes.
const AFTER: u32 = 1;

impl_has_delayed_work! {
    impl HasDelayedWork<SETTLE> for Object { self.settle }
}

impl WorkItem<SETTLE> for Object {
    type Pointer = Arc<Object>;

    fn run(object: Arc<Object>) {
        // What is filled from now on queues it again.
        object.unsettled.store(false, Ordering::Relaxed);
        let Ok(current) = object.current() else {
            return;
        };
        let settled = object
            .cache()
            .cred()
            .run(|| page_cache::settle(&current.file));
        object.warn_if_failed("writing filled data to the disk", settled);
    }
}

impl Object {
    /// Notes that data was put into the page cache, by a fill or a read.
    pub(crate) fn uses_memory(self: &Arc<Self>) {
        if self.unsettled.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.store.lock().bound.is_some() {
            let queue = self.cache.daemon().commit_queue();
            DelayedWork::enqueue(self, queue, seconds_in_jiffies(AFTER));
        }
    }

    /// The object is not bound any more: nothing is to be queued, and nothing waits.
    pub(super) fn stop_settling(self: &Arc<Self>) {
        DelayedWork::cancel(self);
    }
}
