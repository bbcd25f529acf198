// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table's queues as ordered lists: few entries, copied often.

use super::fault::Fault;
use crate::ondemand::queue;
use crate::ondemand::queue::Env;
use crate::ondemand::queue::Request;
use crate::ondemand::queue::Slots;
use alloc::vec::Vec;
use core::ops::Deref;
use core::ops::DerefMut;

/// The surroundings of a modelled table.
#[derive(Debug)]
pub struct Model;

impl Env for Model {
    /// The request's label, never used twice.
    type Ticket = u64;
    /// The object's label, never used twice.
    type Handle = u32;
    type Requests = Places<Request<Model>>;
    type Objects = Places<queue::Entry<Model>>;
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

/// What the kernel keeps in a box of its own. Here it lies in the list itself, since an exploration
/// copies tables all the time.
#[derive(Clone, Debug)]
pub struct Inline<T>(pub T);

impl<T> Deref for Inline<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Inline<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[derive(Clone, Debug)]
struct Entry<T> {
    id: u32,
    marked: bool,
    value: Inline<T>,
}

/// Numbered places with one mark each.
#[derive(Clone, Debug)]
pub struct Places<T> {
    /// By number.
    entries: Vec<Entry<T>>,
    /// Fault: every so many-th mark that is set gets lost.
    forget_every: Option<u32>,
    marks_set: u32,
    /// Fault: a single mark is not seen by those who ask whether there is any.
    overlook_one: bool,
}

impl<T> Places<T> {
    /// No places are taken.
    pub fn new() -> Self {
        Places {
            entries: Vec::new(),
            forget_every: None,
            marks_set: 0,
            overlook_one: false,
        }
    }

    /// No places are taken, and marks go wrong as `fault` has it.
    pub fn with_fault(fault: Fault) -> Self {
        let mut places = Self::new();
        match fault {
            Fault::ForgetMark(every) => places.forget_every = Some(every),
            Fault::PollLies => places.overlook_one = true,
            _ => {}
        }
        places
    }

    /// The published places and whether each is marked, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, bool, &T)> {
        self.entries
            .iter()
            .map(|entry| (entry.id, entry.marked, &entry.value.0))
    }

    fn find(&self, id: u32) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id)
    }
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slots<T> for Places<T> {
    type Reservation = Place;
    type Owned = Inline<T>;

    fn publish(&mut self, place: Place, value: Inline<T>) -> u32 {
        let id = place.0;
        match self.find(id) {
            Ok(_) => panic!("place {id} was published twice"),
            Err(at) => self.entries.insert(
                at,
                Entry {
                    id,
                    marked: false,
                    value,
                },
            ),
        }
        id
    }

    fn get(&mut self, id: u32) -> Option<&mut T> {
        let at = self.find(id).ok()?;
        Some(&mut self.entries[at].value)
    }

    fn take(&mut self, id: u32) -> Option<Inline<T>> {
        let at = self.find(id).ok()?;
        Some(self.entries.remove(at).value)
    }

    fn mark(&mut self, id: u32, on: bool) {
        if on {
            if let Some(every) = self.forget_every {
                self.marks_set = self.marks_set.wrapping_add(1);
                if self.marks_set % every == 0 {
                    return;
                }
            }
        }
        if let Ok(at) = self.find(id) {
            self.entries[at].marked = on;
        }
    }

    fn first_marked(&self, from: u32, to: u32) -> Option<u32> {
        self.entries
            .iter()
            .filter(|entry| entry.marked && (from..=to).contains(&entry.id))
            .map(|entry| entry.id)
            .next()
    }

    fn any_marked(&self) -> bool {
        let overlooked = usize::from(self.overlook_one);
        self.entries.iter().filter(|entry| entry.marked).count() > overlooked
    }

    fn first(&self, from: u32) -> Option<u32> {
        let at = self.entries.partition_point(|entry| entry.id < from);
        self.entries.get(at).map(|entry| entry.id)
    }
}
