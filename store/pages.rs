// SPDX-License-Identifier: GPL-2.0

//! What is stored is stored in whole pages.

use core::ops::Range;

/// Bytes of a page.
pub(crate) const PAGE: u64 = kernel::page::PAGE_SIZE as u64;

/// The size of the file for an object of `size` bytes: whole pages. `None` if that overflows.
pub(crate) fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(PAGE)
}

/// The pages that hold `bytes`.
pub(crate) fn pages(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / PAGE..bytes.end.div_ceil(PAGE)
}
