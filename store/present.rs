// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which pages of a file hold data: a bit a page.
//!
//! The bits lie in chunks of [`CHUNK`] pages: 4 KiB of memory for 128 MiB of the file, with pages of
//! 4 KiB. A chunk without any page, and one with all of its pages, needs no bits.
//!
//! Memory is handed in by [`Chunk::new`] before it is needed, and handed out when it is not needed any
//! more; nothing here allocates or frees. One call looks at one chunk at most. So all of it can be
//! called under a spinlock, and marking cannot fail.

use core::ops::DerefMut;
use core::ops::Range;

/// Words of a chunk's bits.
pub const WORDS: usize = 512;

/// Pages of a chunk.
pub const CHUNK: u64 = 64 * WORDS as u64;

/// The pages of one chunk.
pub struct Chunk<B> {
    /// `None` if no page is present, or all are.
    bits: Option<B>,
    /// Pages that are present.
    present: u64,
}

impl<B> Chunk<B> {
    /// A chunk without any page. `bits` are all zero.
    pub fn new(bits: B) -> Self {
        Chunk {
            bits: Some(bits),
            present: 0,
        }
    }
}

/// The chunks of a file, by their numbers: page `n` is in chunk `n / CHUNK`. Chunks that are missing have
/// no page.
pub trait Chunks {
    /// Memory for the bits of one chunk.
    type Bits: DerefMut<Target = [u64; WORDS]>;

    /// A chunk by its number.
    fn get(&mut self, number: u64) -> Option<&mut Chunk<Self::Bits>>;

    /// The first number of a chunk that is not below `from`.
    fn next(&mut self, from: u64) -> Option<u64>;
}

/// Pages of one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The chunk's number.
    pub number: u64,
    /// Counted from the chunk's first page, in `0..=CHUNK`; not empty.
    pub pages: Range<u64>,
}

/// `pages`, chunk by chunk.
pub fn parts(pages: Range<u64>) -> impl Iterator<Item = Part> {
    let mut at = pages.start;
    core::iter::from_fn(move || {
        if at >= pages.end {
            return None;
        }
        let number = at / CHUNK;
        let base = number * CHUNK;
        let part = at - base..CHUNK.min(pages.end - base);
        at = base + part.end;
        Some(Part {
            number,
            pages: part,
        })
    })
}

/// What a search has found in the chunk that it looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This page is the next.
    Found(u64),
    /// None before this one, with which the search goes on.
    GoOn(u64),
    /// None at all.
    Nowhere,
}

/// The pages of one file.
pub struct Map<C> {
    chunks: C,
}

impl<C: Chunks> Map<C> {
    /// A map over `chunks`.
    pub const fn new(chunks: C) -> Self {
        Map { chunks }
    }

    /// The chunks, to put one in for which there [was none](Map::lacks).
    pub fn chunks(&mut self) -> &mut C {
        &mut self.chunks
    }

    /// Whether memory for this chunk has to be put in before its pages can be marked.
    pub fn lacks(&mut self, number: u64) -> bool {
        match self.chunks.get(number) {
            None => true,
            Some(chunk) => chunk.bits.is_none() && chunk.present == 0,
        }
    }

    /// Marks pages as present. Without memory for the chunk they stay absent.
    ///
    /// Returns the bits of a chunk that has all its pages now.
    pub fn mark(&mut self, part: &Part) -> Option<C::Bits> {
        let chunk = self.chunks.get(part.number)?;
        let bits = chunk.bits.as_mut()?;
        chunk.present += fill(bits, &part.pages, true);
        if chunk.present == CHUNK {
            chunk.bits.take()
        } else {
            None
        }
    }

    /// Marks pages as absent. In a chunk that has all its pages, and so no bits, all of them become
    /// absent: that happens only to files that were too long.
    pub fn forget(&mut self, part: &Part) {
        let Some(chunk) = self.chunks.get(part.number) else {
            return;
        };
        match chunk.bits.as_mut() {
            Some(bits) => chunk.present -= fill(bits, &part.pages, false),
            None => chunk.present = 0,
        }
    }

    /// Looks for the first page from `at` on that is present, or absent, in the chunk of `at`.
    pub fn step(&mut self, at: u64, present: bool) -> Step {
        let number = at / CHUNK;
        let base = number * CHUNK;
        let Some(chunk) = self.chunks.get(number) else {
            if !present {
                return Step::Found(at);
            }
            return match self.chunks.next(number) {
                Some(next) => Step::GoOn(next * CHUNK),
                None => Step::Nowhere,
            };
        };
        let found = match &chunk.bits {
            Some(bits) => first(bits, at - base, present),
            None if (chunk.present != 0) == present => Some(at - base),
            None => None,
        };
        found.map_or(Step::GoOn(base + CHUNK), |page| Step::Found(base + page))
    }
}

/// Sets or clears bits; tells how many have changed.
fn fill(bits: &mut [u64; WORDS], pages: &Range<u64>, value: bool) -> u64 {
    let mut changed = 0;
    let mut at = pages.start;
    while at < pages.end.min(CHUNK) {
        let end = pages.end.min((at / 64 + 1) * 64);
        let ones = u64::MAX >> (64 - (end - at));
        let mask = ones << (at % 64);
        let word = &mut bits[(at / 64) as usize];
        let new = if value { *word | mask } else { *word & !mask };
        changed += u64::from((*word ^ new).count_ones());
        *word = new;
        at = end;
    }
    changed
}

/// The first bit from `from` on that is `value`.
fn first(bits: &[u64; WORDS], from: u64, value: bool) -> Option<u64> {
    let start = (from / 64) as usize;
    let mut mask = u64::MAX << (from % 64);
    for (word, bits) in bits.iter().enumerate().skip(start) {
        let hits = if value { *bits } else { !*bits } & mask;
        if hits != 0 {
            return Some(word as u64 * 64 + u64::from(hits.trailing_zeros()));
        }
        mask = u64::MAX;
    }
    None
}
