// SPDX-License-Identifier: GPL-2.0

//! The holes of an object: what has to be asked for.

use crate::store::contents::Contents;
use crate::store::pages::padded;
use crate::store::pages::pages;
use crate::store::pages::PAGE;
use crate::vfs::store_file::Extent;
use kernel::prelude::*;

/// A range of bytes, in whole pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Span {
    /// The span that covers `start..start + len`; `None` if that overflows.
    pub(crate) fn around(start: u64, len: u64) -> Option<Self> {
        Some(Span {
            start: start - start % PAGE,
            end: padded(start.checked_add(len)?)?,
        })
    }
}

impl Contents {
    /// The first hole in `span`.
    pub(crate) fn first_hole(&self, span: Span) -> Option<Span> {
        let pages = pages(&(span.start..span.end));
        let start = self.find(pages.clone(), false);
        if start >= pages.end {
            return None;
        }
        let end = self.find(start..pages.end, true);
        Some(Span {
            start: start * PAGE,
            end: end * PAGE,
        })
    }

    /// The hole, which begins in `hole`, as far as it lies in the windows that `hole` lies in. `window` is a
    /// power of two in bytes, of whole pages; the file is to be `end` bytes long.
    pub(crate) fn rounded_out(&self, hole: Span, window: u64, end: u64) -> Span {
        let before = pages(&(hole.start & !(window - 1)..hole.start));
        let mut start = before.start;
        while start < before.end {
            start = self.find(start..before.end, false);
            let next = self.find(start..before.end, true);
            if next >= before.end {
                break;
            }
            start = next;
        }
        let last = hole.end.checked_next_multiple_of(window).unwrap_or(end);
        let last = last.min(end);
        // If somebody was faster, this is the start.
        let stored = self.find(pages(&(hole.start..last)), true);
        Span {
            start: start * PAGE,
            end: (stored * PAGE).max(hole.end),
        }
    }

    /// Whether the byte at `pos` is present, and how far what is there goes, at most to `end`.
    pub(crate) fn extent(&self, pos: u64, end: u64) -> Extent {
        let pages = pages(&(pos..end));
        let data = self.find(pages.clone(), true);
        if data >= pages.end {
            Extent::Hole(None)
        } else if data > pages.start {
            Extent::Hole(Some(data * PAGE))
        } else {
            Extent::Data((self.find(pages, false) * PAGE).min(end))
        }
    }

    /// `SEEK_DATA` (`data`) or `SEEK_HOLE` in a file that is `end` bytes long.
    ///
    /// # Errors
    ///
    /// `ENXIO` if `pos` is not in the file, or no data follows.
    pub(crate) fn seek(&self, pos: u64, data: bool, end: u64) -> Result<u64> {
        if pos >= end {
            return Err(ENXIO);
        }
        match (self.extent(pos, end), data) {
            (Extent::Data(_), true) | (Extent::Hole(_), false) => Ok(pos),
            (Extent::Data(to) | Extent::Hole(Some(to)), _) => Ok(to),
            (Extent::Hole(None), true) => Err(ENXIO),
        }
    }
}
