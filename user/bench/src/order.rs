// SPDX-License-Identifier: MIT OR Apache-2.0

//! In which order things are done: blocks by readers, runs within a pair.

use rand::seq::SliceRandom as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// `count` of the blocks 0 to `blocks`, each at most once, in an order that follows from `seed`.
pub(crate) fn random_blocks(blocks: u64, count: usize, seed: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..blocks).collect();
    all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    all.truncate(count);
    all
}

/// The runs of pair number `pair`: as given, or the other way round in every second pair, so that
/// what goes first in one goes last in the next.
pub(crate) fn alternate<T>(mut runs: Vec<T>, pair: u32) -> Vec<T> {
    if pair % 2 == 1 {
        runs.reverse();
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn same_seed_same_order() {
        let order = random_blocks(1000, 1000, 1);
        assert_eq!(order, random_blocks(1000, 1000, 1));
        assert_ne!(order, random_blocks(1000, 1000, 2));
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        // The beginning of a long order is the short one.
        assert_eq!(order[..10], random_blocks(1000, 10, 1));
    }

    proptest! {
        #[test]
        fn no_block_comes_twice(blocks in 0_u64..500, count in 0_usize..600, seed: u64) {
            let order = random_blocks(blocks, count, seed);
            let different: BTreeSet<_> = order.iter().copied().collect();
            prop_assert_eq!(different.len(), order.len());
            prop_assert_eq!(order.len(), count.min(usize::try_from(blocks).unwrap()));
            prop_assert!(order.iter().all(|block| *block < blocks));
        }
    }

    #[test]
    fn who_was_first_is_last_in_the_next_pair() {
        assert_eq!(alternate(vec![1, 2, 3], 0), [1, 2, 3]);
        assert_eq!(alternate(vec![1, 2, 3], 1), [3, 2, 1]);
        assert_eq!(alternate(vec![1, 2, 3], 2), [1, 2, 3]);
    }
}
