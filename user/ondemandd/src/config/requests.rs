// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tables `[sources.NAME.requests]`: how a remote source may be asked.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;
use serde::Serialize;

use crate::source::ahead::LEAST;

/// More is not read ahead, in bytes: 64 MiB.
const MOST_AHEAD: u64 = 64 << 20;

/// `[sources.NAME.requests]`: how a remote source may be asked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RequestLimits {
    /// Requests at a time, and threads that wait for them; 1 to 256.
    pub concurrency: usize,
    /// Bytes a second, of all requests together; 0: as many as come.
    pub bandwidth: u64,
    /// Bytes that are fetched at most ahead of a reader who reads on and on; 0: none. Otherwise
    /// [`LEAST`] to 67,108,864. With a concurrency of 1 there is nobody to do it.
    pub read_ahead: u64,
    /// Milliseconds that making a connection may take; 1 to 600,000.
    pub connect_ms: u64,
    /// Milliseconds that one try of a request may take; 1 to 600,000.
    pub try_ms: u64,
    /// Milliseconds that a request may take with all of its tries; the READ gets EIO then. 1 to 600,000.
    pub total_ms: u64,
    /// How often a request that failed is tried again; at most 20.
    pub retries: usize,
    /// Milliseconds before the first new try; each further pause is twice as long. 1 to 600,000.
    pub first_pause_ms: u64,
    /// The longest of these pauses, in milliseconds; 1 to 600,000.
    pub longest_pause_ms: u64,
}

impl Default for RequestLimits {
    fn default() -> Self {
        RequestLimits {
            concurrency: 8,
            bandwidth: 0,
            read_ahead: 8 << 20,
            connect_ms: 5_000,
            try_ms: 10_000,
            total_ms: 30_000,
            retries: 4,
            first_pause_ms: 100,
            longest_pause_ms: 3_000,
        }
    }
}

impl RequestLimits {
    /// Refuses numbers out of their ranges.
    ///
    /// # Errors
    ///
    /// The first such number.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=256).contains(&self.concurrency),
            "concurrency {} is not within 1 to 256",
            self.concurrency
        );
        ensure!(
            self.retries <= 20,
            "retries {} is more than 20",
            self.retries
        );
        ensure!(
            self.read_ahead == 0 || (LEAST..=MOST_AHEAD).contains(&self.read_ahead),
            "read-ahead {} is neither 0 nor within {LEAST} to {MOST_AHEAD}",
            self.read_ahead
        );
        for (name, value) in [
            ("connect-ms", self.connect_ms),
            ("try-ms", self.try_ms),
            ("total-ms", self.total_ms),
            ("first-pause-ms", self.first_pause_ms),
            ("longest-pause-ms", self.longest_pause_ms),
        ] {
            ensure!(
                (1..=600_000).contains(&value),
                "{name} {value} is not within 1 to 600000"
            );
        }
        ensure!(
            self.first_pause_ms <= self.longest_pause_ms,
            "first-pause-ms {} is more than longest-pause-ms {}",
            self.first_pause_ms,
            self.longest_pause_ms
        );
        Ok(())
    }

    /// The limit of bytes a second, if there is one.
    #[must_use]
    pub fn bandwidth(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.bandwidth)
    }

    /// How many bytes are fetched at most ahead of a reader, if any are.
    #[must_use]
    pub fn read_ahead(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.read_ahead).filter(|_| self.concurrency > 1)
    }

    /// How long one try of a request may take.
    #[must_use]
    pub fn one_try(&self) -> Duration {
        Duration::from_millis(self.try_ms)
    }

    /// How long a request may take with all of its tries.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_millis(self.total_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_ranges() {
        RequestLimits::default().check().unwrap();
        for bad in [
            "concurrency = 0",
            "concurrency = 257",
            "retries = 21",
            "read-ahead = 131071",
            "read-ahead = 67108865",
            "try-ms = 0",
            "total-ms = 600001",
            "first-pause-ms = 3001",
        ] {
            let limits: RequestLimits = toml::from_str(bad).unwrap();
            assert!(limits.check().is_err(), "{bad}");
        }
        assert!(toml::from_str::<RequestLimits>("bandwidth = -1").is_err());
    }

    #[test]
    fn one_thread_reads_nothing_ahead() {
        let ahead = |text| {
            let limits: RequestLimits = toml::from_str(text).unwrap();
            limits.check().unwrap();
            limits.read_ahead().map(NonZeroU64::get)
        };
        assert_eq!(ahead("read-ahead = 131072"), Some(131_072));
        assert_eq!(
            ahead("read-ahead = 67108864\nconcurrency = 2"),
            Some(64 << 20)
        );
        assert_eq!(ahead("read-ahead = 0"), None);
        assert_eq!(ahead("concurrency = 1"), None);
    }
}
