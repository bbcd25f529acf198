// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which part of a blob its readers will want next, told from the READs that come.
//!
//! A READ comes of what the cache does not hold, so nobody hears of a reader that finds what was read ahead for
//! it. The next READ of such a reader begins where that ends, or within it if it has not come yet:
//!
//! ```text
//!   READ  READ |  read ahead   |  and then
//!   ----- -----|...............|
//!                      ^       ^ a READ that begins here has the reader's whole way behind it
//!                      | a READ that begins in the second half: the next part is due, so that the source
//!                        has something to do until the reader gets to its end
//! ```
//!
//! READs that follow one another are a row. What is read ahead for a row is as long as the row is already, so
//! at most half of what is fetched for it is in vain, and it doubles from one to the next. A READ that
//! continues no row begins one, and nothing is read ahead for it: readers of scattered blocks cost nothing.

use std::ops::Range;

/// The shortest that is read ahead, in bytes, but for the end of a blob: what the kernel reads ahead by itself.
pub const LEAST: u64 = 128 << 10;

/// So many rows of one READ are remembered.
const MOST_BEGUN: usize = 8;
/// So many rows are read ahead for, in one blob.
const MOST_FOLLOWED: usize = 8;

/// What is known of the readers of one blob.
#[derive(Debug)]
pub struct Pattern {
    /// The longest that is read ahead at once, in bytes.
    most: u64,
    /// What begins and lengths are multiples of, in bytes.
    unit: u64,
    /// Nothing is read from here on.
    end: u64,
    /// Rows of one READ; the last to be heard of comes last.
    begun: Vec<Row>,
    /// Rows of more; in the same order.
    followed: Vec<Row>,
}

/// READs that follow one another. All are offsets in bytes, and `start <= low <= from <= due <= end`.
#[derive(Clone, Debug)]
struct Row {
    /// Where the first began.
    start: u64,
    /// A READ from here to `end` continues the row: this is where the last part but one that was read ahead
    /// began, since some of it may be on its way.
    low: u64,
    /// Where the last part began.
    from: u64,
    /// A READ from here on makes the next part due.
    due: u64,
    /// Where all that was read, or read ahead, ends.
    end: u64,
}

impl Pattern {
    /// Of a blob that nobody has read. No more than `most` bytes are read ahead at once, in multiples of
    /// `unit`, and none at `end` or later, which is a multiple of a block.
    #[must_use]
    pub fn new(most: u64, unit: u64, end: u64) -> Self {
        Pattern {
            most,
            unit: unit.max(1),
            end,
            begun: Vec::new(),
            followed: Vec::new(),
        }
    }

    /// Notes a READ, as widened to what will be fetched for it; says what to read ahead, if anything: a range
    /// that is not empty, begins at a multiple of the unit at the end of the READ or later, and ends at one or
    /// at the blob's end. Of one row, no byte is told twice.
    pub fn note(&mut self, read: &Range<u64>) -> Option<Range<u64>> {
        if read.is_empty() {
            return None;
        }
        let is_next = |row: &Row| (row.low..=row.end).contains(&read.start);
        let row = if let Some(index) = self.followed.iter().rposition(is_next) {
            self.followed.remove(index)
        } else if let Some(index) = self.begun.iter().rposition(is_next) {
            self.begun.remove(index)
        } else {
            // Several readers may have missed the same.
            if self.begun.iter().all(|row| row.end != read.end) {
                push(&mut self.begun, Row::of(read), MOST_BEGUN);
            }
            return None;
        };
        let (row, part) = self.step(row, read);
        push(&mut self.followed, row, MOST_FOLLOWED);
        part
    }

    /// Forgets all readers: what was read ahead for them has not come.
    pub fn forget(&mut self) {
        self.begun.clear();
        self.followed.clear();
    }

    /// The row after a READ that continues it, and what is due.
    fn step(&self, mut row: Row, read: &Range<u64>) -> (Row, Option<Range<u64>>) {
        if read.start < row.due && read.end < row.end {
            return (row, None);
        }
        row.end = row.end.max(read.end);
        row.low = row.from;
        let length = (read.end - row.start).max(LEAST).min(self.most);
        let aligned = |at: u64| at.checked_next_multiple_of(self.unit);
        let from = aligned(row.end).unwrap_or(self.end);
        let to = aligned(from.saturating_add(length)).unwrap_or(self.end);
        let to = to.min(self.end);
        row.from = row.end;
        row.due = row.end;
        if from >= to {
            return (row, None);
        }
        row.from = from;
        row.due = from + (to - from) / 2;
        row.end = to;
        (row, Some(from..to))
    }
}

impl Row {
    fn of(read: &Range<u64>) -> Self {
        Row {
            start: read.start,
            low: read.end,
            from: read.end,
            due: read.end,
            end: read.end,
        }
    }
}

/// Adds a row; the one that was not heard of for longest makes room.
fn push(rows: &mut Vec<Row>, row: Row, most: usize) {
    if rows.len() >= most {
        rows.remove(0);
    }
    rows.push(row);
}

#[cfg(test)]
mod tests;
