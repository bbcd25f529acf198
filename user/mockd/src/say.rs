// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lines that the daemon prints.

use std::fmt;

/// Prints a line to the standard output, at once and whole: the next instruction may be the last.
///
/// Whoever has closed the other end does not want to know.
pub fn line(text: fmt::Arguments<'_>) {
    let line = format!("{text}\n");
    let _ = rustix::io::write(rustix::stdio::stdout(), line.as_bytes());
}

/// As `println!`, in one `write`.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::say::line(format_args!($($arg)*))
    };
}
