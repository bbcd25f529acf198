// SPDX-License-Identifier: MIT OR Apache-2.0

//! The properties on random bytes, a little, without a fuzzer.

use ondemand_properties::command;
use ondemand_properties::key;
use ondemand_properties::table;
use ondemand_properties::xattr;
use proptest::prelude::*;

fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=longest)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn commands(word in "[a-z]{3,7} ?", rest in "[ 0-9a-fx%,\n\\x00-]{0,16}|[^z]{0,8}") {
        let text = format!("{word}{rest}");
        prop_assert_eq!(command::holds(text.as_bytes()), Ok(()));
    }

    #[test]
    fn keys(data in bytes(300)) {
        prop_assert_eq!(key::holds(&data), Ok(()));
    }

    #[test]
    fn attributes(data in bytes(300)) {
        prop_assert_eq!(xattr::holds(&data), Ok(()));
    }

    #[test]
    fn orders_of_events(data in bytes(600)) {
        if let Err(why) = table::holds(&data) {
            prop_assert!(false, "{}", why);
        }
    }
}
