// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers that look random and follow from a seed.

/// A sequence of numbers: splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The sequence of the `number`th of several things that share a seed; they have nothing in common.
    #[must_use]
    pub fn of(seed: u64, number: u64) -> Self {
        let seed = Random(seed).number();
        Random(Random(seed.wrapping_add(number)).number())
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let number = u128::from(self.number()) * end as u128;
        // The product is less than `end` times 2^64.
        usize::try_from(number >> 64).unwrap_or(0)
    }

    /// True in so many cases of a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these; `None` if there is none.
    pub fn one_of<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        things.get(self.below(things.len()))
    }

    /// Changes the order of these.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for end in (1..things.len()).rev() {
            things.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod numbers {
    use super::*;

    #[test]
    fn follow_from_the_seed_and_stay_below_their_end() {
        let numbers =
            |mut random: Random| -> Vec<usize> { (0..1000).map(|_| random.below(7)).collect() };
        let one = numbers(Random::of(1, 2));
        assert_eq!(one, numbers(Random::of(1, 2)));
        assert_ne!(one, numbers(Random::of(2, 1)));
        for number in 0..7 {
            assert!(one.iter().filter(|&&other| other == number).count() > 80);
        }
        assert_eq!(Random::new(1).below(0), 0);
    }

    #[test]
    fn that_are_shuffled_are_the_same() {
        let mut things: Vec<u32> = (0..50).collect();
        Random::new(3).shuffle(&mut things);
        assert_ne!(things, (0..50).collect::<Vec<_>>());
        things.sort_unstable();
        assert_eq!(things, (0..50).collect::<Vec<_>>());
    }
}
