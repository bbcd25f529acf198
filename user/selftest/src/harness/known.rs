// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which tests the C module of the base kernel does not pass, and why.

/// A test that the C module does not pass.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The test.
    pub test: &'static str,
    /// The defect, by its id in the project's list.
    pub defect: &'static str,
    /// Whether it would crash that kernel, or leave it unusable.
    pub dangerous: bool,
}

const fn fails(test: &'static str, defect: &'static str) -> Known {
    Known {
        test,
        defect,
        dangerous: false,
    }
}

const fn dangerous(test: &'static str, defect: &'static str) -> Known {
    Known {
        test,
        defect,
        dangerous: true,
    }
}

/// All of them, as seen with Linux 6.12.117.
const KNOWN: &[Known] = &[
    dangerous("d01_lz4_across_cached_edges", "D1"),
    dangerous("d03_key_lengths", "D3"),
    fails("d05_close_with_delivered_read", "D5"),
];

/// What is known about a test.
#[must_use]
pub fn find(test: &str) -> Option<Known> {
    KNOWN.iter().copied().find(|known| known.test == test)
}

/// The names in the list that no test has.
pub fn stale<'a>(tests: &'a [&'a str]) -> impl Iterator<Item = &'static str> + 'a {
    KNOWN
        .iter()
        .map(|known| known.test)
        .filter(|name| !tests.contains(name))
}
