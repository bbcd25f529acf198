// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a module is told before `bind`: nothing, or the opt-ins of this module, by which it does
//! other than the C module would.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::BLOCK_SIZE;
use cachefiles_proto::MAX_BATCH;
use serde::Deserialize;
use serde::Serialize;

/// A set of opt-ins; its text is `classic`, or words such as `buffered+fetch=1048576`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Mode {
    /// `fetch BYTES`: READs ask for aligned windows of so many bytes.
    fetch: Option<u64>,
    /// `fill buffered`: what the daemon writes goes through the page cache.
    buffered: bool,
    /// `batch COUNT`: one `read` gives the daemon up to so many messages.
    batch: Option<u32>,
}

impl Mode {
    /// What the C module does, and both do by default.
    pub(crate) fn classic() -> Self {
        Mode::default()
    }

    /// Whether it is [`Mode::classic`].
    pub(crate) fn is_classic(&self) -> bool {
        *self == Mode::classic()
    }

    /// The commands to write before `bind`.
    pub(crate) fn commands(&self) -> Vec<String> {
        let fetch = self.fetch.map(|bytes| format!("fetch {bytes}"));
        let buffered = self.buffered.then(|| "fill buffered".to_owned());
        let batch = self.batch.map(|count| format!("batch {count}"));
        fetch.into_iter().chain(buffered).chain(batch).collect()
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut mode = Mode::classic();
        for word in text.split('+') {
            match word.split_once('=') {
                None if word == "classic" && text == word => {}
                None if word == "buffered" => mode.buffered = true,
                Some(("fetch", bytes)) => mode.fetch = Some(whole_blocks(bytes)?),
                Some(("batch", count)) => mode.batch = Some(messages(count)?),
                _ => {
                    bail!("no mode {text:?}: classic, or fetch=BYTES, buffered, batch=COUNT with +")
                }
            }
        }
        Ok(mode)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fetch = self.fetch.map(|bytes| format!("fetch={bytes}"));
        let batch = self.batch.map(|count| format!("batch={count}"));
        let buffered = self.buffered.then(|| "buffered".to_owned());
        let words = [buffered, fetch, batch];
        let words: Vec<_> = words.into_iter().flatten().collect();
        match words.is_empty() {
            true => f.write_str("classic"),
            false => f.write_str(&words.join("+")),
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        mode.to_string()
    }
}

/// How much the daemon writes for a READ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Fill {
    /// What the READ asks for.
    #[default]
    Asked,
    /// The aligned windows of so many bytes that it touches.
    Window(u64),
}

impl Fill {
    /// From where to where the daemon writes for a READ of `len` bytes at `off`.
    pub(crate) fn range(self, off: u64, len: u64) -> (u64, u64) {
        let end = off.saturating_add(len);
        match self {
            Fill::Asked => (off, end),
            Fill::Window(window) => (
                off - off % window,
                end.checked_next_multiple_of(window).unwrap_or(end),
            ),
        }
    }
}

impl FromStr for Fill {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "asked" => Ok(Fill::Asked),
            bytes => whole_blocks(bytes).map(Fill::Window),
        }
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fill::Asked => f.write_str("asked"),
            Fill::Window(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl TryFrom<String> for Fill {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Fill> for String {
    fn from(fill: Fill) -> Self {
        fill.to_string()
    }
}

fn messages(text: &str) -> Result<u32> {
    let count: u32 = text.parse().with_context(|| format!("{text:?}"))?;
    ensure!(
        (1..=MAX_BATCH).contains(&count),
        "{count} messages are not 1 to {MAX_BATCH}"
    );
    Ok(count)
}

fn whole_blocks(text: &str) -> Result<u64> {
    let bytes: u64 = text.parse().with_context(|| format!("{text:?}"))?;
    let blocks = usize::try_from(bytes).is_ok_and(|bytes| bytes > 0 && bytes % BLOCK_SIZE == 0);
    ensure!(
        blocks,
        "{bytes} bytes are no multiple of {BLOCK_SIZE} above 0"
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_written() {
        for text in [
            "classic",
            "fetch=1048576",
            "buffered",
            "buffered+fetch=4096",
            "batch=16",
            "buffered+fetch=4096+batch=2",
        ] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), text);
        }
        let other: Mode = "fetch=4096+buffered".parse().unwrap();
        assert_eq!(other.to_string(), "buffered+fetch=4096");
        for text in [
            "",
            "fast",
            "fetch",
            "fetch=x",
            "fetch=0",
            "fetch=5000",
            "classic+buffered",
            "batch",
            "batch=0",
            "batch=257",
        ] {
            assert!(text.parse::<Mode>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_mode_is_what_the_device_is_told() {
        let commands = |text: &str| text.parse::<Mode>().unwrap().commands();
        assert!(commands("classic").is_empty());
        assert_eq!(
            commands("buffered+fetch=65536"),
            ["fetch 65536", "fill buffered"]
        );
        assert_eq!(commands("batch=8"), ["batch 8"]);
    }

    #[test]
    fn windows_cover_what_is_asked() {
        assert_eq!(Fill::Asked.range(8192, 4096), (8192, 12288));
        let window: Fill = "65536".parse().unwrap();
        assert_eq!(window.range(8192, 4096), (0, 65536));
        assert_eq!(window.range(65536, 65536), (65536, 131_072));
        assert_eq!(window.range(61440, 8192), (0, 131_072));
        assert_eq!(window.range(u64::MAX - 4095, 4096).1, u64::MAX);
        assert_eq!("asked".parse::<Fill>().unwrap(), Fill::Asked);
        assert!("100".parse::<Fill>().is_err());
    }
}
