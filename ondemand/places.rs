// SPDX-License-Identifier: GPL-2.0

//! Where the table's requests and objects lie in the kernel: in an xarray each.

use crate::kcompat::xarray::Reservation;
use crate::kcompat::xarray::Values;
use crate::ondemand::queue::Slots;
use kernel::prelude::*;

impl<T: 'static> Slots<T> for Values<T> {
    type Reservation = Reservation<T>;
    type Owned = KBox<T>;

    fn publish(&mut self, place: Reservation<T>, value: KBox<T>) -> u32 {
        Values::publish(self, place, value)
    }

    fn get(&mut self, id: u32) -> Option<&mut T> {
        Values::get(self, id)
    }

    fn take(&mut self, id: u32) -> Option<KBox<T>> {
        Values::take(self, id)
    }

    fn mark(&mut self, id: u32, on: bool) {
        Values::mark(self, id, on);
    }

    fn first_marked(&self, from: u32, to: u32) -> Option<u32> {
        Values::first_marked(self, from, to)
    }

    fn any_marked(&self) -> bool {
        Values::any_marked(self)
    }

    fn first(&self, from: u32) -> Option<u32> {
        Values::first(self, from)
    }
}
