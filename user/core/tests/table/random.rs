// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random orders of events against the request table's invariants, each step checked.

use crate::events::events;
use crate::events::play;
use ondemand_core::model::Fault;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_order_of_events_keeps_the_invariants(
        events in events(120)
    ) {
        if let Err(why) = play(Fault::None, &events) {
            prop_assert!(false, "{}", why);
        }
    }
}
