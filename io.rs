// SPDX-License-Identifier: GPL-2.0

//! Reading objects.
//!
//! A reader makes sure that the span it wants has no [hole](crate::io::holes), asking the daemon for each, and
//! reads directly from the file then. A hole that is missed would be read as zeros, so the span is looked
//! at again after every answer, to its end.

mod fill;
mod holes;

use crate::cache::Cache;
use crate::errno::Errno;
use crate::fscache::backend::Operations;
use crate::fscache::backend::Source;
use crate::fscache::stats;
use crate::fscache::termination::PendingRead;
use crate::io::holes::Span;
use crate::kcompat::fs::File;
use crate::kcompat::print::ratelimit;
use crate::kcompat::types::ARef;
use crate::object::Current;
use crate::object::Object;
use crate::stop_points::Place;
use crate::store::pages::padded;
use crate::store::pages::PAGE;
use crate::vfs::page_cache;
use crate::vfs::store_file::Extent;
use crate::vfs::store_io;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::ArcBorrow;

impl Object {
    /// Makes sure that all of `start..start + len` is stored, and tells the file to read it from.
    ///
    /// # Errors
    ///
    /// `EIO` beyond the object's end, or if the daemon's answer did not help; `EINTR` if the task
    /// was killed; why the object could not be opened.
    fn bring_in(&self, start: u64, len: usize) -> Result<ARef<File>> {
        let engine = self.engine();
        engine.wait_open(self)?;
        let Current {
            file,
            contents,
            size,
            ..
        } = self.current()?;
        let size = size.ok_or(EIO)?;
        let end = padded(size).ok_or(EIO)?;
        let wanted = Span::around(start, len as u64)
            .filter(|span| span.end <= end)
            .ok_or(EIO)?;

        let window = u64::from(self.store().options().fetch);
        let mut asked: Option<Span> = None;
        let mut left = wanted;
        loop {
            let Some(hole) = contents.first_hole(left) else {
                return Ok(file);
            };
            if let Some(asked) = asked {
                if hole.start == asked.start && hole.end >= asked.end {
                    return Err(EIO);
                }
            }
            self.store().stops().stop_at(Place::HoleFound);
            // What is before the hole was looked at, and is not punched again.
            left.start = hole.start;
            asked = if window == 0 {
                engine.read(self, hole.start..hole.end)?;
                Some(hole)
            } else {
                let span = contents.rounded_out(hole, window, end);
                let answered = engine.fetch(self, span.start..span.end)?;
                // Somebody else's READ may be for another part of the span.
                answered.contains(&hole.start).then_some(hole)
            };
        }
    }
}

/// Reads through the cache.
pub(crate) enum CacheReads {}

impl Operations for CacheReads {
    type Backend = Cache;

    fn prepare_ondemand_read(
        object: ArcBorrow<'_, Object>,
        start: u64,
        len: usize,
    ) -> Result<ARef<File>> {
        object.bring_in(start, len).inspect_err(|error| {
            if *error != EINTR && ratelimit() {
                let error = Errno::from(*error);
                pr_warn!("{}: {} bytes at {}: {:?}\n", &*object, len, start, error);
            }
        })
    }

    fn prepare_read(object: ArcBorrow<'_, Object>, start: u64, len: usize, size: u64) -> Source {
        if start >= size {
            return Source::Zeroes;
        }
        let Ok(Current { contents, .. }) = object.current() else {
            return Source::Server(len);
        };
        let within = |to: u64| usize::try_from(to - start).map_or(len, |part| part.min(len));
        match contents.extent(start, start.saturating_add(len as u64)) {
            Extent::Data(to) => Source::Cache(within(to)),
            Extent::Hole(Some(to)) => Source::Server(within(to)),
            Extent::Hole(None) => Source::Server(len),
        }
    }

    fn query_occupancy(
        object: ArcBorrow<'_, Object>,
        start: u64,
        len: usize,
        granularity: usize,
    ) -> Result<(u64, usize)> {
        let Current { contents, .. } = object.current()?;
        let granule = PAGE.max(granularity as u64);
        let none = || Error::from(Errno::ENODATA);
        let span_end = start.checked_add(len as u64).ok_or_else(none)?;
        let from = match contents.extent(start, span_end) {
            Extent::Data(_) => start,
            Extent::Hole(next) => next.ok_or_else(none)?,
        };
        let from = from
            .checked_next_multiple_of(granule)
            .filter(|from| *from < span_end)
            .ok_or_else(none)?;
        match contents.extent(from, span_end) {
            Extent::Data(to) => {
                let bytes = (to - to % granule).saturating_sub(from);
                let bytes = usize::try_from(bytes).map_err(|_| none())?;
                if bytes == 0 {
                    return Err(none());
                }
                Ok((from, bytes))
            }
            Extent::Hole(_) => Err(none()),
        }
    }

    fn read(object: ArcBorrow<'_, Object>, file: &File, start: u64, read: PendingRead<'_>) {
        stats::count_read();
        let cred = object.store().cred();
        let range = start..start.saturating_add(read.len() as u64);
        // What was just filled; from the disk it would have to get there first.
        if object.store().fills_in_memory() && page_cache::holds_some(file, &range) {
            let object = Arc::from(object);
            store_io::read_cached(cred, file, start, read);
            // What was given back meanwhile has come again.
            object.uses_memory();
        } else {
            store_io::read_direct(cred, file, start, read);
        }
    }
}
