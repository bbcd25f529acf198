// SPDX-License-Identifier: MIT OR Apache-2.0

//! The log of all processes.
//!
//! It holds what is said with `tracing`, and nothing that is said with the older crate `log`, whatever the
//! filter: there, the signer of S3 requests shows the keys that it has found.

use std::panic::PanicHookInfo;

use anyhow::Context;
use serde::Deserialize;
use tracing::error;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::EnvFilter;

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text for people, coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line: `timestamp` (RFC 3339, UTC), `level`, `target`, `message`, and the event's
    /// own fields beside them.
    Json,
}

/// Starts the log of this process. To be called once. With [`LogFormat::Json`] a panic is a line of the
/// log as well, and `colours` means nothing.
///
/// # Errors
///
/// `filter` is none; or there is a log already.
pub fn start<W>(filter: &str, format: LogFormat, writer: W, colours: bool) -> anyhow::Result<()>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).context("--log")?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours && format == LogFormat::Human);
    match format {
        LogFormat::Human => begin(subscriber.finish()),
        LogFormat::Json => {
            let subscriber = subscriber
                .json()
                // There are no spans.
                .with_current_span(false)
                .with_span_list(false)
                .flatten_event(true);
            begin(subscriber.finish())?;
            std::panic::set_hook(Box::new(tell_panic));
            Ok(())
        }
    }
}

/// Not `init()`, which takes in what is said with `log`.
fn begin(subscriber: impl Subscriber + Send + Sync) -> anyhow::Result<()> {
    tracing::subscriber::set_global_default(subscriber).context("there is a log already")
}

/// A panic as a line that a program can read, rather than as the text that the standard library prints.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let reason = panic.payload_as_str().unwrap_or("of unknown cause");
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    error!(
        reason,
        place,
        thread = thread.name(),
        "panic: a defect of this program"
    );
}
