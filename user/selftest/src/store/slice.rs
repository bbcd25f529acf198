// SPDX-License-Identifier: MIT OR Apache-2.0

//! A slice of a long list: what takes too long for every change is divided, and each change is
//! tested with another slice.

use std::fmt;
use std::str::FromStr;

/// Each `of`th item of a list, from the `number`th on, which counts from 1. The slices of one list
/// have no item in common, and all of them together have every item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    number: usize,
    of: usize,
}

impl Slice {
    /// All of a list.
    pub const WHOLE: Slice = Slice { number: 1, of: 1 };

    /// Leaves of `items` what belongs to this slice, in its order.
    pub fn keep<T>(self, items: &mut Vec<T>) {
        let mut turn = 0;
        items.retain(|_| {
            turn = turn % self.of + 1;
            turn == self.number
        });
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// Why a text is no slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlice;

impl fmt::Display for NoSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a slice is I/N, with I from 1 to N, as 2/4")
    }
}

impl std::error::Error for NoSlice {}

impl FromStr for Slice {
    type Err = NoSlice;

    fn from_str(text: &str) -> Result<Self, NoSlice> {
        let (number, of) = text.split_once('/').ok_or(NoSlice)?;
        let number = number.parse().map_err(|_| NoSlice)?;
        let of = of.parse().map_err(|_| NoSlice)?;
        if number == 0 || number > of {
            return Err(NoSlice);
        }
        Ok(Slice { number, of })
    }
}

#[cfg(test)]
mod slices {
    use super::*;

    #[test]
    fn together_are_the_list_and_share_nothing() {
        for of in 1..12 {
            let mut all = Vec::new();
            for number in 1..=of {
                let slice: Slice = format!("{number}/{of}").parse().unwrap();
                let mut items: Vec<u32> = (0..10).collect();
                slice.keep(&mut items);
                all.extend(items);
            }
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>(), "{of} slices");
        }
    }

    #[test]
    fn take_turns() {
        let mut items = vec!['a', 'b', 'c', 'd', 'e'];
        "2/3".parse::<Slice>().unwrap().keep(&mut items);
        assert_eq!(items, ['b', 'e']);
    }

    #[test]
    fn that_are_none_are_refused() {
        for text in ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/4", "a/b"] {
            assert_eq!(text.parse::<Slice>(), Err(NoSlice), "{text}");
        }
        assert_eq!("1/1".parse(), Ok(Slice::WHOLE));
    }
}
