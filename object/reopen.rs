// SPDX-License-Identifier: GPL-2.0

//! The reopen work: a READ on a closed object drives a new OPEN.
//!
//! It runs on the module's own workqueue and only queues the OPEN; `copen` finishes the job. It
//! holds its object, and finds out under the table's lock whether the object still wants to be
//! opened, so that nobody ever has to cancel it.

use crate::object::Object;
use crate::stop_points::Place;
use kernel::sync::Arc;
use kernel::workqueue::impl_has_work;
use kernel::workqueue::WorkItem;

impl_has_work! {
    impl HasWork<Self, 0> for Object { self.reopen }
}

impl WorkItem for Object {
    type Pointer = Arc<Object>;

    fn run(object: Arc<Object>) {
        object.engine.stops().stop_at(Place::ReopenWork);
        object.engine.send_open(&object);
    }
}
