// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the data of blobs comes from.
//!
//! | module | what it is |
//! |---|---|
//! | [`directory`] | files below a directory |
//! | [`remote`] | a web server or an S3 bucket, through Apache OpenDAL |
//! | [`version`] | what tells two versions of a remote blob apart |
//! | [`token`] | what a version is called |
//! | `transport` | HTTP |
//! | `answer` | what a server may say |
//! | `pace` | how many bytes a second |
//! | [`names`] | which source a cookie key belongs to |
//! | [`flights`] | ranges that are being fetched |
//! | [`ahead`] | ranges that will be wanted next |
//!
//! A directory costs what it always did: a system call a read, in the thread that got the READ. What a
//! remote source needs (a runtime, an HTTP client, TLS) is made when one is configured, and not before.

pub mod ahead;
mod answer;
pub mod directory;
pub mod flights;
pub mod names;
mod pace;
pub mod remote;
pub mod token;
mod transport;
pub mod version;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;

use self::directory::Directory;
use self::directory::FileBlob;
use self::remote::Remote;
use self::remote::RemoteBlob;
use self::token::Identity;
use crate::config::source::IdentityBy;
use crate::config::source::Verify;
use crate::manifest;
use crate::manifest::Manifest;

/// Bytes of a manifest that are asked for at once.
const MANIFEST_PART: usize = 1 << 20;

/// Why a key names no blob.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LookupError {
    /// The key is no plain relative name: it is empty, absolute, or has a NUL or an empty, `.` or
    /// `..` component.
    #[error("not a plain relative name")]
    BadName,
    /// The name leads out of the source directory, through a symbolic link.
    #[error("leads out of the source directory")]
    Escape,
    /// There is no such file.
    #[error("no such blob")]
    Unknown,
    /// The key begins with the name of no source, and there is no default one.
    #[error("begins with the name of no source, and there is no default source")]
    NoSource,
    /// The name is that of a directory, a device or the like.
    #[error("not a regular file")]
    NotAFile,
    /// The key is no UTF-8, which remote sources need.
    #[error("is not UTF-8, as names of remote blobs are")]
    NotText,
    /// `openat2` failed.
    #[error("cannot open: {0}{hint}", hint = hint(*.0))]
    Open(Errno),
    /// `fstat` failed.
    #[error("cannot examine: {0}")]
    Stat(Errno),
    /// The remote source does not let us.
    #[error("not allowed: {0}")]
    Denied(String),
    /// The remote source did not say what it has in time.
    #[error("no answer within {0:?}")]
    TooSlow(Duration),
    /// The remote source failed, or said what makes no sense.
    #[error("{0}")]
    Remote(String),
    /// The blob is another one than what is in use, or in the cache; this is what it was and is.
    #[error("has changed: {0}")]
    Changed(String),
    /// It changes all the time.
    #[error("changes while it is looked at: an image must be complete")]
    Unsettled,
    /// Which version the cache has data of cannot be made sure of, or cannot be recorded.
    #[error("{0}")]
    Record(String),
    /// There is no manifest that could be used, but there must be one.
    #[error("its manifest: {0}")]
    Manifest(String),
}

/// What to do about a file that cannot be opened.
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ACCESS | Errno::PERM => {
            "; the worker's user may not read it: change its mode, or see --user"
        }
        _ => "",
    }
}

impl LookupError {
    /// What the kernel is told.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            LookupError::BadName
            | LookupError::Escape
            | LookupError::Unknown
            | LookupError::NoSource
            | LookupError::NotText
            | LookupError::NotAFile => Errno::NOENT,
            LookupError::Open(errno) | LookupError::Stat(errno) => *errno,
            LookupError::Denied(_) => Errno::ACCESS,
            LookupError::TooSlow(_) => Errno::TIMEDOUT,
            LookupError::Changed(_) => Errno::STALE,
            LookupError::Unsettled => Errno::AGAIN,
            LookupError::Remote(_) | LookupError::Manifest(_) | LookupError::Record(_) => Errno::IO,
        }
    }
}

/// Why the data of a blob cannot be had.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file is shorter than when it was opened, in bytes.
    #[error("the file is no longer {0} bytes long")]
    Shrunk(u64),
    /// `pread` failed.
    #[error("cannot read: {0}")]
    Read(io::Error),
    /// The remote blob is another one than when it was opened.
    #[error("the blob has changed since it was opened: {0}")]
    Changed(String),
    /// The remote source did not bring the data in time.
    #[error("not there within {0:?}")]
    TooSlow(Duration),
    /// The remote source failed, or said what makes no sense.
    #[error("{0}")]
    Remote(String),
}

/// A source of blobs.
#[derive(Debug)]
pub struct Source {
    store: Store,
    verify: Verify,
    identity: IdentityBy,
}

/// What reads of a blob are held against, before their data is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Check {
    /// All that tells versions apart.
    Version,
    /// The size alone: the bytes are held against a manifest, or nothing else is to count.
    Size,
}

/// A blob that was found.
#[derive(Debug)]
pub struct Found {
    /// The blob.
    pub blob: Blob,
    /// What its bytes must be, if there is a manifest.
    pub manifest: Option<Manifest>,
    /// Which version of it this is.
    pub identity: Identity,
}

/// Where a source has its blobs.
#[derive(Debug)]
pub enum Store {
    /// Below a directory.
    Directory(Directory),
    /// At a web server or in a bucket.
    Remote(Arc<Remote>),
}

impl Source {
    /// A source, what is done with the manifests in it, and what tells versions apart where there is none.
    #[must_use]
    pub fn new(store: Store, verify: Verify, identity: IdentityBy) -> Self {
        Source {
            store,
            verify,
            identity,
        }
    }

    /// Opens the blob that `key` names here, with its manifest, and says which version it is. `had_manifest`: the
    /// cache has data that was held against one, so a manifest that is not there is an error.
    ///
    /// # Errors
    ///
    /// As [`Source::lookup`] and [`Source::manifest`].
    pub fn open(&self, key: &[u8], had_manifest: bool) -> Result<Found, LookupError> {
        let mut blob = self.lookup(key)?;
        let manifest = self.manifest(key, &blob, had_manifest)?;
        let identity = match (&manifest, self.identity, &mut blob) {
            // It says what the bytes are, wherever they come from.
            (Some(manifest), ..) => manifest.identity(),
            (None, IdentityBy::Size, blob) => Identity::of_size(blob.size()),
            (None, _, Blob::File(file)) => file.identify()?,
            (None, _, Blob::Remote(blob)) => blob.version().identity(),
        };
        if manifest.is_some() || self.identity == IdentityBy::Size {
            blob.check_by(Check::Size);
        }
        Ok(Found {
            blob,
            manifest,
            identity,
        })
    }

    /// Opens the blob that `key` names here. For a remote source that takes as long as its time limits
    /// allow.
    ///
    /// # Errors
    ///
    /// A [`LookupError`].
    pub fn lookup(&self, key: &[u8]) -> Result<Blob, LookupError> {
        match &self.store {
            Store::Directory(directory) => directory.lookup(key).map(Blob::File),
            Store::Remote(remote) => remote.lookup(key).map(Blob::Remote),
        }
    }

    /// Reads the manifest of the blob that `key` names, if there is one and it is wanted.
    ///
    /// # Errors
    ///
    /// It cannot be read, is none, or is that of a blob of another size; or it is missing where one is
    /// demanded, or was there before.
    pub fn manifest(
        &self,
        key: &[u8],
        blob: &Blob,
        had_manifest: bool,
    ) -> Result<Option<Manifest>, LookupError> {
        if self.verify == Verify::Never {
            return Ok(None);
        }
        let failed = |reason: String| LookupError::Manifest(reason);
        let key = [key, manifest::SUFFIX.as_bytes()].concat();
        let text = match self.lookup(&key) {
            Ok(text) => text,
            // A bucket that may not be listed says 403 of what is not there.
            Err(LookupError::Unknown | LookupError::Denied(_)) if !had_manifest && !self.wants_manifest() => {
                return Ok(None)
            }
            Err(error) if had_manifest => {
                return Err(failed(format!(
                    "{error}; but there was one, and what is cached was held against it: bring it back, or \
                     have `ondemandd evict` forget it"
                )))
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let size = text.size();
        if size > manifest::longest_of(blob.size()) {
            return Err(failed(format!("{size} bytes are too many")));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        let mut at = 0;
        for part in bytes.chunks_mut(MANIFEST_PART) {
            text.read_at(part, at)
                .map_err(|error| failed(error.to_string()))?;
            at += u64::try_from(part.len()).unwrap_or(u64::MAX);
        }
        let manifest = Manifest::parse(&bytes).map_err(|error| failed(error.to_string()))?;
        if manifest.size() != blob.size() {
            let (is, of) = (blob.size(), manifest.size());
            return Err(failed(format!("is of {of} bytes, the blob has {is}")));
        }
        Ok(Some(manifest))
    }

    /// Whether an image without a manifest is refused.
    fn wants_manifest(&self) -> bool {
        self.verify == Verify::Always || self.identity == IdentityBy::Digest
    }

    /// The remote source, if this is one.
    #[must_use]
    pub fn as_remote(&self) -> Option<&Arc<Remote>> {
        match &self.store {
            Store::Directory(_) => None,
            Store::Remote(remote) => Some(remote),
        }
    }
}

/// One blob that is open.
#[derive(Debug)]
pub enum Blob {
    /// A file.
    File(FileBlob),
    /// A remote blob.
    Remote(RemoteBlob),
}

impl Blob {
    /// Size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Blob::File(file) => file.size(),
            Blob::Remote(blob) => blob.version().size(),
        }
    }

    /// From now on this is what reads are held against.
    pub fn check_by(&mut self, check: Check) {
        match self {
            Blob::File(file) => file.check_by(check),
            Blob::Remote(blob) => blob.check_by(check),
        }
    }

    /// The remote blob, if this is one.
    #[must_use]
    pub fn as_remote(&self) -> Option<&RemoteBlob> {
        match self {
            Blob::File(_) => None,
            Blob::Remote(blob) => Some(blob),
        }
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// A [`ReadError`]; what `buffer` holds is then unspecified.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        match self {
            Blob::File(file) => file.read_at(buffer, offset),
            Blob::Remote(blob) => blob.read_at(buffer, offset),
        }
    }
}

/// Whether a key is a relative path without tricks.
fn is_plain_name(key: &[u8]) -> bool {
    !key.contains(&0)
        && key
            .split(|byte| *byte == b'/')
            .all(|part| !matches!(part, b"" | b"." | b".."))
}

#[cfg(test)]
#[path = "../../tests/support/hostile.rs"]
#[expect(unreachable_pub, reason = "integration tests have it, too")]
pub(crate) mod hostile;
