// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a daemon may choose before `bind`.

use crate::store::limits::Limits;

/// How what a daemon writes gets to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// At once.
    #[default]
    Direct,
    /// Small writes through the page cache, and soon after.
    Buffered,
}

/// The options, as they are without a command.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How full the file system may become.
    pub limits: Limits,
    /// Seconds that a request waits for its answer; 0: for ever.
    pub timeout: u32,
    /// Bytes of the windows that READs ask for, a power of two; 0: for what is missing alone.
    pub fetch: u32,
    /// How the daemon's data is stored.
    pub fill: Fill,
    /// The most messages that one `read` delivers; 0: it was not told, one.
    pub batch: u32,
    /// A `copen` may tell the version of an object.
    pub identity: bool,
}
