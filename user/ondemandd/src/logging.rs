// SPDX-License-Identifier: MIT OR Apache-2.0

//! The log of all processes.
//!
//! It holds what is said with `tracing`, and nothing that is said with the older crate `log`, whatever the
//! filter: there, the signer of S3 requests shows the keys that it has found.

use anyhow::Context;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::EnvFilter;

/// Starts the log of this process. To be called once.
///
/// # Errors
///
/// `filter` is none; or there is a log already.
pub fn start<W>(filter: &str, writer: W, colours: bool) -> anyhow::Result<()>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).context("--log")?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .finish();
    // Not `init()`, which takes in what is said with `log`.
    tracing::subscriber::set_global_default(subscriber).context("there is a log already")
}
