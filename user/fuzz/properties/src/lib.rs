// SPDX-License-Identifier: MIT OR Apache-2.0

//! What holds for any input of the module's pure files.
//!
//! Each module is the property of one fuzz target: `holds` takes bytes from anywhere and says what
//! they break. What is compared with is written anew, from `docs/protocol.md`, in the plainest way: no
//! line of it is shared with what it judges. `tests/` plays the corpus through the same functions.

#![forbid(unsafe_code)]

/// Returns an error with the text, unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

pub mod command;
pub mod key;
pub mod table;
pub mod xattr;
