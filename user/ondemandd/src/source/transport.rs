// SPDX-License-Identifier: MIT OR Apache-2.0

//! HTTP for OpenDAL's services, with what its own transport lets pass refused.
//!
//! The server is not trusted. Whatever it says, a request ends with the bytes that were asked for or with
//! an error, and takes no more memory than these bytes:
//!
//! | what a server may do | what comes of it |
//! |---|---|
//! | answer 200 to a range, as one that knows no ranges does | an error |
//! | answer 206 with another range, or without saying which | an error |
//! | answer with another ETag, or without one; with another size or time | an error of the kind `ConditionNotMatch`, for each answer by itself |
//! | compress | an error: lengths would mean nothing |
//! | send more than it said, or without end | an error at the first byte too many |
//! | send less | an error that is worth another try |
//! | send a long page with an error | cut |
//! | redirect to another scheme, or more than five times | an error |
//! | answer 429 or 5xx | an error that is worth another try |

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use futures_core::Stream;
use http::header;
use http::Request;
use http::Response;
use opendal::Buffer;
use opendal::Error;
use opendal::HttpBody;
use opendal::HttpTransport;
use reqwest::redirect::Policy;
use rustls::crypto::ring;

use super::answer::unexpected;
use super::answer::Asked;
use super::answer::Expected;
use super::answer::Limit;

tokio::task_local! {
    /// What the answers of the read that is under way have to be of. OpenDAL asks again by itself when a body
    /// breaks, and tells nobody; but it does so in the task of that read.
    pub(super) static EXPECTED: Arc<Expected>;
}

/// How often a request may be sent on to another place.
const MOST_REDIRECTS: usize = 5;

/// A client for one source.
pub(super) struct Transport {
    client: reqwest::Client,
}

/// What a client is made for.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    /// The URL's scheme is `https`.
    pub(super) secure: bool,
    /// Certificates to trust instead of the system's, a PEM file.
    pub(super) ca_file: Option<&'a Path>,
    /// How long a connection may take to be made.
    pub(super) connect_within: Duration,
    /// Whether redirects are followed at all. Signed requests fit one place only.
    pub(super) redirects: bool,
}

impl Transport {
    /// Makes a client.
    ///
    /// # Errors
    ///
    /// The certificates cannot be read.
    pub(super) fn new(settings: &Settings<'_>) -> anyhow::Result<Self> {
        // The first source with a remote server sets it; for the others it is there.
        let _ = ring::default_provider().install_default();
        let redirects = if settings.redirects {
            Policy::custom(follow)
        } else {
            Policy::none()
        };
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("ondemandd/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_within)
            .redirect(redirects)
            .referer(false)
            // Retries are OpenDAL's, where they are counted.
            .retry(reqwest::retry::never())
            .no_proxy();
        if let Some(path) = settings.ca_file {
            let cannot = || format!("cannot use the certificates in {}", path.display());
            let pem = std::fs::read(path).with_context(cannot)?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).with_context(cannot)?;
            anyhow::ensure!(!certificates.is_empty(), "{}: there are none", cannot());
            client = client.tls_certs_only(certificates);
        } else if !settings.secure {
            // Reads no certificates of the system, of which a small one has none.
            client = client.tls_certs_only([]);
        }
        let client = client.build().context("cannot make an HTTP client")?;
        Ok(Transport { client })
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

/// Follows a redirect that keeps the scheme.
fn follow(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().first().map(reqwest::Url::scheme);
    if from != Some(attempt.url().scheme()) {
        let to = attempt.url().scheme().to_owned();
        return attempt.error(Refused(format!("redirected to another scheme, {to}")));
    }
    if attempt.previous().len() > MOST_REDIRECTS {
        let text = format!("redirected more than {MOST_REDIRECTS} times");
        return attempt.error(Refused(text));
    }
    attempt.follow()
}

/// A reason of ours inside an error of reqwest.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let (mut parts, body) = request.into_parts();
        if !body.is_empty() {
            return Err(unexpected(
                "a request with a body: this source is only read",
            ));
        }
        let asked = Asked::of(&parts.method, &parts.headers)?;
        // By the rules of HTTP a weak ETag never matches; it is compared below all the same.
        if asked
            .etag
            .as_deref()
            .is_some_and(|etag| etag.starts_with("W/"))
        {
            parts.headers.remove(header::IF_MATCH);
        }
        let url = reqwest::Url::parse(&parts.uri.to_string())
            .map_err(|error| unexpected("the URL is malformed").set_source(error))?;
        let answer = self
            .client
            .request(parts.method, url)
            .headers(parts.headers)
            .send()
            .await
            .map_err(failed)?;

        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.clone_from(answer.headers());
        }
        let limit = asked.check(answer.status(), answer.headers())?;
        if let Limit::Exactly(_) = limit {
            // No data without it: that it is not there is an error of ours.
            EXPECTED
                .try_with(|expected| expected.check(answer.headers()))
                .map_err(|error| {
                    unexpected("data that nobody holds against anything").set_source(error)
                })??;
        }
        let body = Limited {
            stream: Box::pin(answer.bytes_stream()),
            limit,
            left: limit.bytes(),
        };
        let body = HttpBody::new(body, limit.exactly());
        response
            .body(body)
            .map_err(|error| unexpected("the answer is malformed").set_source(error))
    }
}

/// A body that is held to its length.
struct Limited<S> {
    stream: Pin<Box<S>>,
    limit: Limit,
    left: u64,
}

impl<S, B> Stream for Limited<S>
where
    S: Stream<Item = Result<B, reqwest::Error>>,
    B: Into<Buffer>,
{
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.left == 0 && matches!(self.limit, Limit::Cut(_)) {
                return Poll::Ready(None);
            }
            let part: Buffer = match ready!(self.stream.as_mut().poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(failed(error)))),
                Some(Ok(part)) => part.into(),
            };
            if part.is_empty() {
                continue;
            }
            let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
            if let Some(left) = self.left.checked_sub(len) {
                self.left = left;
                return Poll::Ready(Some(Ok(part)));
            }
            return Poll::Ready(Some(match self.limit {
                Limit::Exactly(bytes) => {
                    Err(unexpected(format!("more than the {bytes} bytes asked for")))
                }
                Limit::Cut(_) => {
                    let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                    self.left = 0;
                    Ok(part.slice(..left))
                }
            }));
        }
    }
}

/// An error of the network, or a refusal of ours within it. The URL stays out: it may be signed.
fn failed(error: reqwest::Error) -> Error {
    let again = !error.is_redirect() && !error.is_builder();
    let what = if error.is_redirect() {
        "redirect"
    } else if error.is_connect() {
        "cannot connect"
    } else if error.is_timeout() {
        "no answer in time"
    } else {
        "the connection failed"
    };
    unexpected(what)
        .with_temporary(again)
        .set_source(error.without_url())
}
