// SPDX-License-Identifier: MIT OR Apache-2.0

//! Blobs of a web server or an S3 bucket, through Apache OpenDAL.
//!
//! The threads of the worker wait for each answer, so every call here takes a thread for as long as the
//! source takes; how long that is at most is in [`RequestLimits`]. From the inside out:
//!
//! ```text
//! Transport      what a server may say, and how much of it
//! TimeoutLayer   one try
//! RetryLayer     new tries, with growing pauses, of what may help
//! Concurrent-    requests at a time
//!   LimitLayer
//! block_on       the deadline of it all, and the wait for the bandwidth's turn
//! ```

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use futures_core::Stream;
use opendal::layers::ConcurrentLimitLayer;
use opendal::layers::RetryEvent;
use opendal::layers::RetryLayer;
use opendal::layers::TimeoutLayer;
use opendal::services;
use opendal::ErrorKind;
use opendal::HttpTransporter;
use opendal::OperationContext;
use opendal::Operator;
use tokio::runtime::Handle;
use tracing::debug;

use super::answer::Expected;
use super::flights::Flights;
use super::is_plain_name;
use super::pace::Pace;
use super::transport;
use super::transport::Transport;
use super::transport::EXPECTED;
use super::version::Version;
use super::Check;
use super::LookupError;
use super::ReadError;
use crate::config::requests::RequestLimits;
use crate::config::source::HttpConfig;
use crate::config::source::S3Config;
use crate::counters::count;
use crate::counters::Counters;

/// So much of what a server says of an error is told.
const MOST_WORDS: usize = 300;

/// What a remote source takes but for the threads of the network: made before there is a second thread, since
/// it reads files that the worker gives up later.
#[derive(Debug)]
pub struct Client {
    operator: Operator,
    limits: RequestLimits,
}

/// A remote source.
#[derive(Debug)]
pub struct Remote {
    operator: Operator,
    runtime: Handle,
    limits: RequestLimits,
    pace: Option<Pace>,
}

/// One remote blob. Nothing of it is open at the server.
#[derive(Debug)]
pub struct RemoteBlob {
    remote: Arc<Remote>,
    path: String,
    expected: Arc<Expected>,
    flights: Flights,
}

impl Client {
    /// A web server. Nothing is sent yet; secrets and certificates are read.
    ///
    /// # Errors
    ///
    /// A secret or certificate cannot be read, or the URL makes no sense.
    pub fn http(config: &HttpConfig, counters: &Arc<Counters>) -> anyhow::Result<Self> {
        let transport = Transport::new(&transport::Settings {
            secure: config.url.starts_with("https:"),
            ca_file: config.ca_file.as_deref(),
            connect_within: Duration::from_millis(config.requests.connect_ms),
            redirects: true,
        })?;
        let mut service = services::Http::default().endpoint(config.url.trim_end_matches('/'));
        if let Some(username) = &config.username {
            service = service.username(username);
        }
        if let Some(password) = &config.password {
            service = service.password(password.read()?.expose());
        }
        if let Some(token) = &config.token {
            service = service.token(token.read()?.expose());
        }
        let operator = Operator::new(service).context("cannot use the web server")?;
        let limits = &config.requests;
        let counters = Arc::clone(counters);
        Ok(Self::new(operator, transport, limits, counters))
    }

    /// A bucket. Nothing is sent yet; secrets and certificates are read.
    ///
    /// # Errors
    ///
    /// A secret or certificate cannot be read, or the endpoint makes no sense.
    pub fn s3(config: &S3Config, counters: &Arc<Counters>) -> anyhow::Result<Self> {
        let transport = Transport::new(&transport::Settings {
            secure: config.endpoint.starts_with("https:"),
            ca_file: config.ca_file.as_deref(),
            connect_within: Duration::from_millis(config.requests.connect_ms),
            redirects: false,
        })?;
        let mut service = services::S3::default()
            .bucket(&config.bucket)
            .endpoint(config.endpoint.trim_end_matches('/'))
            .region(&config.region)
            .root(&format!("/{}", config.prefix))
            // Neither the files of other programs nor the network of a cloud are searched for keys.
            .disable_config_load()
            .disable_ec2_metadata();
        if config.virtual_host_style {
            service = service.enable_virtual_host_style();
        }
        if config.anonymous {
            service = service.skip_signature();
        } else {
            service = service
                .access_key_id(config.access_key_id.read()?.expose())
                .secret_access_key(config.secret_access_key.read()?.expose());
            if let Some(token) = &config.session_token {
                service = service.session_token(token.read()?.expose());
            }
        }
        let operator = Operator::new(service).context("cannot use the bucket")?;
        let limits = &config.requests;
        let counters = Arc::clone(counters);
        Ok(Self::new(operator, transport, limits, counters))
    }

    fn new(
        operator: Operator,
        transport: Transport,
        limits: &RequestLimits,
        counters: Arc<Counters>,
    ) -> Self {
        let context = OperationContext::new().with_http_transport(HttpTransporter::new(transport));
        let one_try = Duration::from_millis(limits.try_ms);
        let retries = RetryLayer::new()
            .with_max_times(limits.retries)
            .with_min_delay(Duration::from_millis(limits.first_pause_ms))
            .with_max_delay(Duration::from_millis(limits.longest_pause_ms))
            .with_jitter()
            .with_notify(move |event: RetryEvent<'_>| {
                count(&counters.retries, 1);
                let error = words(event.err);
                debug!(%error, attempt = event.attempt, pause = ?event.retry_after, "another try");
            });
        let operator = operator
            .with_context(context)
            .layer(
                TimeoutLayer::new()
                    .with_timeout(one_try)
                    .with_io_timeout(one_try),
            )
            .layer(retries)
            .layer(ConcurrentLimitLayer::new(limits.concurrency));
        Client {
            operator,
            limits: limits.clone(),
        }
    }

    /// The source, with the threads that its connections are driven by.
    #[must_use]
    pub fn on(self, runtime: Handle) -> Remote {
        Remote {
            operator: self.operator,
            runtime,
            pace: self.limits.bandwidth().map(Pace::new),
            limits: self.limits,
        }
    }
}

impl Remote {
    /// How it may be asked.
    #[must_use]
    pub fn limits(&self) -> &RequestLimits {
        &self.limits
    }

    /// Asks the server for a blob's size and version. The key is a path of UTF-8 below the URL or prefix.
    ///
    /// # Errors
    ///
    /// A [`LookupError`].
    pub fn lookup(self: &Arc<Self>, key: &[u8]) -> Result<RemoteBlob, LookupError> {
        if !is_plain_name(key) {
            return Err(LookupError::BadName);
        }
        let path = std::str::from_utf8(key).map_err(|_| LookupError::NotText)?;
        Ok(RemoteBlob {
            remote: Arc::clone(self),
            path: path.to_owned(),
            expected: Arc::new(Expected {
                version: self.version_of(path)?,
                check: Check::Version,
            }),
            flights: Flights::default(),
        })
    }

    fn version_of(&self, path: &str) -> Result<Version, LookupError> {
        let total = self.limits.total();
        let asked = async { tokio::time::timeout(total, self.operator.stat(path)).await };
        let answer = self
            .runtime
            .block_on(asked)
            .map_err(|_| LookupError::TooSlow(total))?;
        let metadata = answer.map_err(|error| match error.kind() {
            ErrorKind::NotFound => LookupError::Unknown,
            ErrorKind::PermissionDenied => LookupError::Denied(words(&error)),
            _ => LookupError::Remote(words(&error)),
        })?;
        if !metadata.is_file() {
            return Err(LookupError::NotAFile);
        }
        Ok(Version::of(&metadata))
    }
}

impl RemoteBlob {
    /// Which version was opened.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.expected.version
    }

    /// From now on this is what answers are held against.
    pub fn check_by(&mut self, check: Check) {
        let version = self.expected.version.clone();
        self.expected = Arc::new(Expected { version, check });
    }

    /// How its source may be asked.
    #[must_use]
    pub fn limits(&self) -> &RequestLimits {
        &self.remote.limits
    }

    /// What of it is being fetched.
    #[must_use]
    pub fn flights(&self) -> &Flights {
        &self.flights
    }

    /// Fills `buffer` from `offset` on, with one request and its new tries.
    ///
    /// # Errors
    ///
    /// A [`ReadError`]; what `buffer` holds is then unspecified.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        if let Some(pace) = &self.remote.pace {
            let pause = pace.turn(len_of(buffer), Instant::now());
            std::thread::sleep(pause);
        }
        self.read_in_turn(buffer, offset)
    }

    /// Takes the turn of `len` bytes that nobody waits for; if somebody waits for his, says when to try again.
    ///
    /// # Errors
    ///
    /// When that is.
    pub fn turn_if_free(&self, len: u64) -> Result<(), Instant> {
        match &self.remote.pace {
            Some(pace) => pace.turn_if_free(len, Instant::now()),
            None => Ok(()),
        }
    }

    /// As [`read_at`](Self::read_at), when the turn has been taken.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_in_turn(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        if buffer.is_empty() {
            return Ok(());
        }
        let len = len_of(buffer);
        let total = self.remote.limits.total();
        let fetch = EXPECTED.scope(Arc::clone(&self.expected), self.fetch(buffer, offset, len));
        let asked = async { tokio::time::timeout(total, fetch).await };
        match self.remote.runtime.block_on(asked) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(ReadError::TooSlow(total)),
        }
    }

    async fn fetch(&self, buffer: &mut [u8], offset: u64, len: u64) -> opendal::Result<()> {
        let mut reader = self.remote.operator.reader_with(&self.path);
        if let (Check::Version, Some(etag)) = (self.expected.check, self.version().etag()) {
            reader = reader.if_match(etag);
        }
        let reader = reader.await?;
        let end = offset.saturating_add(len);
        let mut parts = pin!(reader.into_stream(offset..end).await?);
        let mut left = buffer;
        while let Some(part) = std::future::poll_fn(|task| parts.as_mut().poll_next(task)).await {
            for bytes in part? {
                let Some((place, rest)) = left.split_at_mut_checked(bytes.len()) else {
                    return Err(unexpected("more than was asked for"));
                };
                place.copy_from_slice(&bytes);
                left = rest;
            }
        }
        if !left.is_empty() {
            return Err(unexpected("less than was asked for"));
        }
        // That each answer was of this version, the transport has seen to.
        Ok(())
    }

    /// Says why a read failed; if the blob may be another one now, what it is.
    fn explain(&self, error: &opendal::Error) -> ReadError {
        match error.kind() {
            ErrorKind::ConditionNotMatch | ErrorKind::RangeNotSatisfied | ErrorKind::NotFound => {}
            _ => return ReadError::Remote(words(error)),
        }
        match self.remote.version_of(&self.path) {
            Ok(now) if now == *self.version() => ReadError::Changed(words(error)),
            Ok(now) => ReadError::Changed(format!("was {}, is {now}", self.version())),
            Err(LookupError::Unknown) => {
                ReadError::Changed(format!("was {}, is gone", self.version()))
            }
            Err(other) => ReadError::Changed(format!("was {}; now {other}", self.version())),
        }
    }
}

fn len_of(buffer: &[u8]) -> u64 {
    u64::try_from(buffer.len()).unwrap_or(u64::MAX)
}

fn unexpected(message: &str) -> opendal::Error {
    opendal::Error::new(ErrorKind::Unexpected, message)
}

/// What went wrong, in one short line. OpenDAL's own text has the whole answer of the server, and its
/// headers, in it.
fn words(error: &opendal::Error) -> String {
    let mut words = format!("{}: {}", error.kind(), error.message());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    let line = words.escape_debug().to_string();
    match line.char_indices().nth(MOST_WORDS) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests;
