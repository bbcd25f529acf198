// SPDX-License-Identifier: GPL-2.0

//! Reading objects, and filling them.
//!
//! A reader makes sure that the span it wants has no [hole](crate::io::holes), asking the daemon for each, and
//! reads directly from the file then. A hole that is missed would be read as zeros, so the span is looked
//! at again after every answer, to its end.

pub(crate) mod holes;

use crate::cache::Cache;
use crate::cache::PAGE;
use crate::errno::Errno;
use crate::fscache::netfs::Operations;
use crate::fscache::netfs::Source;
use crate::fscache::stats;
use crate::fscache::termination::Termination;
use crate::io::holes::Span;
use crate::kcompat::fs::File;
use crate::kcompat::iov::IovIter;
use crate::kcompat::print::ratelimit;
use crate::kcompat::types::ARef;
use crate::object::Current;
use crate::object::Object;
use crate::stop_points::Place;
use crate::store::namei;
use crate::store::space::Need;
use crate::vfs::page_cache;
use crate::vfs::store_file;
use crate::vfs::store_file::Extent;
use crate::vfs::store_file::Whence;
use crate::vfs::store_io;
use crate::vfs::store_io::Way;
use crate::vfs::superblock::FsKind;
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
        let engine = self.cache().engine();
        engine.wait_open(self)?;
        let Current {
            file,
            contents,
            size,
            ..
        } = self.current()?;
        let size = size.ok_or(EIO)?;
        let end = namei::padded(size).ok_or(EIO)?;
        let wanted = Span::around(start, len as u64)
            .filter(|span| span.end <= end)
            .ok_or(EIO)?;

        let window = self.cache().fetch();
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
            self.cache().daemon().stop_at(Place::HoleFound);
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

    /// Stores what the daemon has written to an anonymous fd.
    ///
    /// # Errors
    ///
    /// See [`anon_fd`](crate::ondemand::anon_fd).
    pub(crate) fn fill(self: &Arc<Self>, pos: u64, from: &mut IovIter) -> Result<usize> {
        let len = from.len() as u64;
        let Current {
            file,
            writer,
            contents,
            size,
            new,
        } = self.current_or_found()?;
        self.cache().daemon().stop_at(Place::FillBegun);
        if size.is_none() && !new {
            // Whether the file that was found is this object's is told by `copen`: until then its
            // attribute vouches for what is in it.
            return Err(Errno::ENOBUFS.into());
        }
        let to = pos.checked_add(len).ok_or(EFBIG)?;
        // A part of a block would make all of it data, zeros included; only the object's own end
        // may be such a part.
        if pos % PAGE != 0 || (to % PAGE != 0 && size != Some(to)) {
            stats::count_dio_misfit();
            return Err(EINVAL);
        }
        let end = match size {
            Some(size) => namei::padded(size).ok_or(EFBIG)?,
            None => self.cache().max_file_size(),
        };
        if to > end {
            return Err(EFBIG);
        }
        let way = self.way_of_fill(len);
        let filling = contents.begin_fill(pos..to)?;
        let written = self.cache().cred().run(|| {
            if let Err(error) = self.cache().has_space(Need::Bytes(len)) {
                // What is stored already can be stored again, where it is written to the same place.
                let again = self.cache().kind() != FsKind::Btrfs
                    && Span::around(pos, len)
                        .is_some_and(|span| contents.first_hole(span).is_none());
                if !again {
                    return Err(error);
                }
            }
            let _writing = self.cache().space().begin_write(len);
            stats::count_write();
            let written = store_io::write(way, &writer, pos, from);
            filling.end(&file, way, written, size)
        })?;
        if written > 0 {
            self.filled();
            if way == Way::Cached {
                self.uses_memory();
                // The withdrawal has not seen this fill.
                if self.current().is_err() {
                    self.cache().cred().run(|| contents.settle_rest(&file))?;
                }
            }
        }
        Ok(written)
    }

    /// How a fill of `len` bytes is stored. A small one is wanted by somebody who waits for little, and
    /// the disk would be most of that wait; a large one is copied faster by the disk itself.
    fn way_of_fill(&self, len: u64) -> Way {
        const LARGE: u64 = 64 << 10;
        if self.cache().fills_in_memory() && len < LARGE {
            Way::Cached
        } else {
            Way::Direct
        }
    }

    /// `lseek` of an anonymous fd.
    ///
    /// # Errors
    ///
    /// `ENXIO` beyond the end, `EINVAL`; those of [`Object::current_or_found`], `ENOBUFS` for one that is
    /// withdrawn.
    pub(crate) fn seek(&self, offset: i64, whence: Whence) -> Result<i64> {
        let Current { file, contents, .. } = self.current_or_found()?;
        let end = store_file::size(&file);
        let pos = || u64::try_from(offset).map_err(|_| ENXIO);
        let found = match whence {
            Whence::End => {
                let end = i64::try_from(end).map_err(|_| EINVAL)?;
                return end.checked_add(offset).filter(|to| *to >= 0).ok_or(EINVAL);
            }
            Whence::Data => contents.seek(pos()?, true, end),
            Whence::Hole => contents.seek(pos()?, false, end),
        };
        i64::try_from(found?).map_err(|_| EFBIG)
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

    fn read(
        object: ArcBorrow<'_, Object>,
        file: &File,
        start: u64,
        iter: &mut IovIter,
        termination: Termination,
    ) {
        stats::count_read();
        let cred = object.cache().cred();
        let range = start..start.saturating_add(iter.len() as u64);
        // What was just filled; from the disk it would have to get there first.
        if object.cache().fills_in_memory() && page_cache::holds_some(file, &range) {
            let object = Arc::from(object);
            store_io::read_cached(cred, file, start, iter, termination);
            // What was given back meanwhile has come again.
            object.uses_memory();
        } else {
            store_io::read_direct(cred, file, start, iter, termination);
        }
    }
}
