// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table's queues as ordered maps.

use crate::ondemand::queue::Env;
use crate::ondemand::queue::Request;
use crate::ondemand::queue::Slots;
use crate::ondemand::state::Object;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// The surroundings of a modelled table.
#[derive(Debug)]
pub struct Model;

impl Env for Model {
    /// The request's label, never used twice.
    type Ticket = u64;
    /// The object's label, never used twice.
    type Handle = u32;
    type Requests = Places<Request<Model>>;
    type Objects = Places<Object<Model>>;
}

/// A reserved place. Nothing is kept for it in the map, so nobody meets it there.
#[derive(Debug)]
pub struct Place(u32);

impl Place {
    /// The next place, cyclically from `cursor` on, that `taken` does not know.
    pub fn reserve(cursor: &mut u32, taken: impl Fn(u32) -> bool) -> Self {
        while taken(*cursor) {
            *cursor = cursor.wrapping_add(1);
        }
        let place = Place(*cursor);
        *cursor = cursor.wrapping_add(1);
        place
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.0
    }
}

/// Numbered places with one mark each.
#[derive(Debug)]
pub struct Places<T> {
    entries: BTreeMap<u32, (Box<T>, bool)>,
    /// Fault: every so many-th mark that is set gets lost.
    forget_every: Option<u32>,
    marks_set: u32,
}

impl<T> Places<T> {
    /// No places are taken. With `forget_every`, each mark of that ordinal number gets lost.
    pub fn new(forget_every: Option<u32>) -> Self {
        Places {
            entries: BTreeMap::new(),
            forget_every,
            marks_set: 0,
        }
    }
}

impl<T: Clone> Clone for Places<T> {
    fn clone(&self) -> Self {
        Places {
            entries: self.entries.clone(),
            forget_every: self.forget_every,
            marks_set: self.marks_set,
        }
    }
}

impl<T> Slots<T> for Places<T> {
    type Reservation = Place;
    type Owned = Box<T>;

    fn publish(&mut self, place: Place, value: Box<T>) -> u32 {
        let before = self.entries.insert(place.0, (value, false));
        assert!(before.is_none(), "place {} was published twice", place.0);
        place.0
    }

    fn get(&mut self, id: u32) -> Option<&mut T> {
        self.entries.get_mut(&id).map(|(value, _)| &mut **value)
    }

    fn take(&mut self, id: u32) -> Option<Box<T>> {
        self.entries.remove(&id).map(|(value, _)| value)
    }

    fn mark(&mut self, id: u32, on: bool) {
        if on {
            self.marks_set = self.marks_set.wrapping_add(1);
            if let Some(every) = self.forget_every {
                if self.marks_set % every == 0 {
                    return;
                }
            }
        }
        if let Some((_, mark)) = self.entries.get_mut(&id) {
            *mark = on;
        }
    }

    fn first_marked(&self, from: u32, to: u32) -> Option<u32> {
        self.entries
            .range(from..=to)
            .find(|(_, (_, mark))| *mark)
            .map(|(id, _)| *id)
    }

    fn any_marked(&self) -> bool {
        self.entries.values().any(|(_, mark)| *mark)
    }

    fn first(&self, from: u32) -> Option<u32> {
        self.entries.range(from..).next().map(|(id, _)| *id)
    }
}
