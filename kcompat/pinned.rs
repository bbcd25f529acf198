// SPDX-License-Identifier: GPL-2.0

//! Pages of a user's buffer, pinned for a write.
//!
//! C headers: [`include/linux/uio.h`](srctree/include/linux/uio.h), [`include/linux/mm.h`](srctree/include/linux/mm.h)
//!
//! Upstream has no counterpart in 7.1.

use crate::bindings;
use crate::kcompat::iov::SourceIter;
use core::ptr::NonNull;
use kernel::ffi::c_void;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::types::Opaque;

/// Pages of a user's buffer that are kept in memory as the source of a write.
///
/// # Invariants
///
/// Each of the pages is pinned; `parts` describes bytes in them, one a page. `mapped` is null, or where all of them are
/// mapped.
pub(crate) struct PinnedSource {
    pages: KVVec<*mut bindings::page>,
    parts: KVVec<bindings::bio_vec>,
    len: usize,
    mapped: *mut c_void,
    segments: KVVec<bindings::kvec>,
    iter: Opaque<bindings::iov_iter>,
}

impl PinnedSource {
    /// Pins the next bytes of `from`, at most `max` of them, and takes them from it. `from` is user
    /// backed. May wait for the current task's memory, so no lock is held that a page fault could
    /// need.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a part of them cannot be read; nothing stays pinned then, but they are taken.
    /// `ENOMEM`.
    pub(crate) fn pin(from: &mut SourceIter<'_>, max: usize) -> Result<Self> {
        let mut source = PinnedSource {
            pages: KVVec::new(),
            parts: KVVec::new(),
            len: 0,
            mapped: core::ptr::null_mut(),
            segments: KVVec::new(),
            iter: Opaque::uninit(),
        };
        if !from.is_user_backed() {
            return Err(EINVAL);
        }
        let wanted = from.len().min(max);
        while source.len < wanted {
            source.pin_some(from, wanted - source.len)?;
        }
        Ok(source)
    }

    /// Pins up to `max` bytes that lie together.
    fn pin_some(&mut self, from: &mut SourceIter<'_>, max: usize) -> Result {
        /// As many as one call of the kernel's brings in at once.
        const AT_ONCE: usize = 64;
        let count = AT_ONCE.min(max / PAGE_SIZE + 2);
        // Before anything is pinned, so that nothing fails after it.
        self.parts.reserve(count, GFP_KERNEL)?;
        self.pages.reserve(count, GFP_KERNEL)?;
        let mut some = [core::ptr::null_mut(); AT_ONCE];
        let mut pages = some.as_mut_ptr();
        let mut offset = 0;
        // SAFETY: The iterator is valid; there is room for `count` pages.
        let pinned = unsafe {
            bindings::iov_iter_extract_pages(
                from.as_ptr(),
                &mut pages,
                max,
                count as u32,
                0,
                &mut offset,
            )
        };
        let mut left = match usize::try_from(pinned) {
            Ok(0) => return Err(EFAULT),
            Ok(pinned) => pinned,
            Err(_) => return Err(Error::from_errno(i32::try_from(pinned).unwrap_or(-14))),
        };
        self.len += left;
        let count = (offset + left).div_ceil(PAGE_SIZE);
        // INVARIANT: The kernel has pinned so many.
        for page in some.into_iter().take(count) {
            self.pages.push(page, GFP_KERNEL)?;
            let part = left.min(PAGE_SIZE - offset);
            let part = bindings::bio_vec {
                bv_page: page,
                bv_len: part as u32,
                bv_offset: offset as u32,
            };
            left -= part.bv_len as usize;
            offset = 0;
            self.parts.push(part, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Bytes that are pinned.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The iterator, from the first byte on, page by page: for who copies the bytes.
    pub(crate) fn iter(&mut self) -> SourceIter<'_> {
        // SAFETY: `parts` describes pinned pages, and is not changed while the result borrows `self`.
        unsafe {
            bindings::iov_iter_bvec(
                self.iter.get(),
                bindings::ITER_SOURCE,
                self.parts.as_ptr(),
                self.parts.len() as _,
                self.len,
            )
        };
        // SAFETY: As above; the iterator was just initialised, as a source, and the result borrows `self`.
        unsafe { SourceIter::from_raw(NonNull::from(&mut self.iter).cast()) }
    }

    /// The same for direct I/O, which wants the parts of the buffer aligned, as the caller has chosen them: a
    /// part that goes over several pages is one here, too, in whatever byte of a page it begins.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn direct_iter(&mut self) -> Result<SourceIter<'_>> {
        let whole = |part: &bindings::bio_vec| part.bv_len as usize == PAGE_SIZE;
        let all_but_last = self.parts.len().saturating_sub(1);
        if self.parts.iter().take(all_but_last).all(whole) {
            return Ok(self.iter());
        }
        let mapped = self.map()?;
        self.segments = KVVec::with_capacity(self.parts.len(), GFP_KERNEL)?;
        let mut ended_with_page = false;
        for (number, part) in self.parts.iter().enumerate() {
            let (offset, len) = (part.bv_offset as usize, part.bv_len as usize);
            match self.segments.last_mut() {
                Some(last) if ended_with_page && offset == 0 => last.iov_len += len,
                _ => self.segments.push(
                    bindings::kvec {
                        iov_base: mapped.wrapping_byte_add(number * PAGE_SIZE + offset),
                        iov_len: len,
                    },
                    GFP_KERNEL,
                )?,
            }
            ended_with_page = offset + len == PAGE_SIZE;
        }
        // SAFETY: `segments` describes the mapping of pinned pages, and neither is changed while the result borrows
        // `self`.
        unsafe {
            bindings::iov_iter_kvec(
                self.iter.get(),
                bindings::ITER_SOURCE,
                self.segments.as_ptr(),
                self.segments.len() as _,
                self.len,
            )
        };
        // SAFETY: As above; the iterator was just initialised, as a source, and the result borrows `self`.
        Ok(unsafe { SourceIter::from_raw(NonNull::from(&mut self.iter).cast()) })
    }

    /// Maps the pages, one behind the other, until this is dropped.
    fn map(&mut self) -> Result<*mut c_void> {
        const NO_NODE: i32 = -1;
        if self.mapped.is_null() {
            let count = self.pages.len() as u32;
            // SAFETY: The pages are pinned by the type invariant, and `pages` has so many.
            self.mapped = unsafe { bindings::vm_map_ram(self.pages.as_mut_ptr(), count, NO_NODE) };
        }
        // INVARIANT: All pages are there, and no more are pinned after `pin`.
        if self.mapped.is_null() {
            return Err(ENOMEM);
        }
        Ok(self.mapped)
    }
}

impl Drop for PinnedSource {
    fn drop(&mut self) {
        if !self.mapped.is_null() {
            // SAFETY: Mapped in `map`, all of it.
            unsafe { bindings::vm_unmap_ram(self.mapped, self.pages.len() as u32) }
        }
        // SAFETY: Pinned by the type invariant.
        unsafe { bindings::unpin_user_pages(self.pages.as_mut_ptr(), self.pages.len() as _) }
    }
}
