// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tables `[sources.NAME]`: where blobs are, and how they may be fetched.
//!
//! The keeper hands them on to each worker as they were when it started, so a file that is changed
//! or broken meanwhile is no matter. No secret is in them, only places of secrets.

use std::fmt;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Context;
use serde::Deserialize;
use serde::Serialize;

use super::requests::RequestLimits;
use super::secret::SecretPlace;

/// One source.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SourceConfig {
    /// Files below a directory.
    Directory(DirectoryConfig),
    /// A web server that knows range requests.
    Http(HttpConfig),
    /// An S3 bucket, or one of a server that speaks S3.
    S3(S3Config),
}

/// Whether data is held against the manifest `IMAGE.manifest` before it reaches the cache.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Manifests are not looked for.
    Never,
    /// If there is a manifest.
    #[default]
    IfPresent,
    /// An image without manifest is refused.
    Always,
}

/// What tells two versions of an image apart, where it has no manifest: with one it is the manifest, and
/// nothing else.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityBy {
    /// Of a directory: inode, size, time of change, and time of change of the inode. Its default.
    Stat,
    /// Of a server: the ETag, or Last-Modified and size where there is none. Its default.
    Etag,
    /// The size alone: whoever changes an image changes its name, or its size.
    Size,
    /// The manifest: an image without one is refused.
    Digest,
}

/// `kind = "directory"`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The directory.
    pub path: PathBuf,
    /// What is done with manifests.
    #[serde(default)]
    pub verify: Verify,
    /// What tells versions apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityBy>,
}

/// `kind = "http"`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpConfig {
    /// `http://` or `https://`, a host, and perhaps a path, below which the blobs are.
    pub url: String,
    /// For basic authentication, together with `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// See `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretPlace>,
    /// A bearer token, instead of a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretPlace>,
    /// Certificates to trust instead of the system's, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What is done with manifests.
    #[serde(default)]
    pub verify: Verify,
    /// What tells versions apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityBy>,
    /// How it may be asked.
    #[serde(default)]
    pub requests: RequestLimits,
}

/// `kind = "s3"`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct S3Config {
    /// Name of the bucket.
    pub bucket: String,
    /// What the names of blobs begin with in the bucket; a path.
    #[serde(default)]
    pub prefix: String,
    /// `http://` or `https://` and a host.
    pub endpoint: String,
    /// The region that requests are signed for; many servers but Amazon's take any.
    #[serde(default = "default_region")]
    pub region: String,
    /// Whether the bucket is named in the host (`bucket.host`) rather than in the path.
    #[serde(default)]
    pub virtual_host_style: bool,
    /// Requests are not signed, for a bucket that everybody may read.
    #[serde(default)]
    pub anonymous: bool,
    /// The key's id; the variable `AWS_ACCESS_KEY_ID` by default.
    #[serde(default = "default_key_id")]
    pub access_key_id: SecretPlace,
    /// The key; the variable `AWS_SECRET_ACCESS_KEY` by default.
    #[serde(default = "default_key")]
    pub secret_access_key: SecretPlace,
    /// The token of a session, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretPlace>,
    /// Certificates to trust instead of the system's, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What is done with manifests.
    #[serde(default)]
    pub verify: Verify,
    /// What tells versions apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityBy>,
    /// How it may be asked.
    #[serde(default)]
    pub requests: RequestLimits,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_key_id() -> SecretPlace {
    SecretPlace::Env("AWS_ACCESS_KEY_ID".to_owned())
}

fn default_key() -> SecretPlace {
    SecretPlace::Env("AWS_SECRET_ACCESS_KEY".to_owned())
}

impl SourceConfig {
    /// What is done with manifests.
    #[must_use]
    pub fn verify(&self) -> Verify {
        match self {
            SourceConfig::Directory(directory) => directory.verify,
            SourceConfig::Http(http) => http.verify,
            SourceConfig::S3(s3) => s3.verify,
        }
    }

    /// What tells versions apart.
    #[must_use]
    pub fn identity(&self) -> IdentityBy {
        match self {
            SourceConfig::Directory(directory) => directory.identity.unwrap_or(IdentityBy::Stat),
            SourceConfig::Http(HttpConfig { identity, .. })
            | SourceConfig::S3(S3Config { identity, .. }) => identity.unwrap_or(IdentityBy::Etag),
        }
    }

    /// Refuses what does not tell versions of this kind of source apart.
    fn check_identity(&self) -> anyhow::Result<()> {
        let is_directory = matches!(self, SourceConfig::Directory(_));
        match self.identity() {
            IdentityBy::Etag if is_directory => anyhow::bail!(
                "identity \"etag\" is for web servers and buckets: a directory has \"stat\", \"size\" or \"digest\""
            ),
            IdentityBy::Stat if !is_directory => anyhow::bail!(
                "identity \"stat\" is for directories: a web server or bucket has \"etag\", \"size\" or \"digest\""
            ),
            IdentityBy::Digest if self.verify() == Verify::Never => anyhow::bail!(
                "identity \"digest\" takes manifests, and verify \"never\" looks for none"
            ),
            _ => Ok(()),
        }
    }

    /// Makes paths absolute, and reads secrets to see that they are there.
    ///
    /// # Errors
    ///
    /// What cannot be found or read.
    pub fn prepare(&mut self) -> anyhow::Result<()> {
        let (secrets, ca_file) = match self {
            SourceConfig::Directory(DirectoryConfig { path, .. }) => {
                return absolute("the source", path);
            }
            SourceConfig::Http(http) => {
                let secrets = [http.password.as_mut(), http.token.as_mut(), None];
                (secrets, &mut http.ca_file)
            }
            SourceConfig::S3(s3) if s3.anonymous => ([None, None, None], &mut s3.ca_file),
            SourceConfig::S3(s3) => {
                let id = Some(&mut s3.access_key_id);
                let key = Some(&mut s3.secret_access_key);
                ([id, key, s3.session_token.as_mut()], &mut s3.ca_file)
            }
        };
        for place in secrets.into_iter().flatten() {
            if let SecretPlace::File(path) = place {
                absolute("the secret", path)?;
            }
            place.read()?;
        }
        match ca_file {
            Some(path) => absolute("the certificates", path),
            None => Ok(()),
        }
    }

    /// Refuses what no source can be made of.
    ///
    /// # Errors
    ///
    /// The field, and what is wrong with it.
    pub fn check(&self) -> anyhow::Result<()> {
        self.check_identity()?;
        match self {
            SourceConfig::Directory(_) => Ok(()),
            SourceConfig::Http(http) => {
                check_url("url", &http.url)?;
                ensure!(
                    http.username.is_some() || http.password.is_none(),
                    "a password without username"
                );
                ensure!(
                    http.username.is_none() || http.token.is_none(),
                    "username and token exclude each other"
                );
                http.requests.check()
            }
            SourceConfig::S3(s3) => {
                check_url("endpoint", &s3.endpoint)?;
                ensure!(!s3.bucket.is_empty(), "bucket is empty");
                s3.requests.check()
            }
        }
    }
}

impl fmt::Display for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceConfig::Directory(directory) => write!(f, "{}", directory.path.display()),
            SourceConfig::Http(http) => f.write_str(&http.url),
            SourceConfig::S3(s3) => write!(f, "bucket {} at {}", s3.bucket, s3.endpoint),
        }
    }
}

fn absolute(what: &str, path: &mut PathBuf) -> anyhow::Result<()> {
    *path = std::fs::canonicalize(&path)
        .with_context(|| format!("cannot find {what} {}", path.display()))?;
    Ok(())
}

/// Refuses URLs of other schemes, and those that hold what does not belong there.
fn check_url(field: &str, text: &str) -> anyhow::Result<()> {
    // Not told, since it may hold a password.
    let url = reqwest::Url::parse(text).map_err(|error| anyhow::anyhow!("{field}: {error}"))?;
    ensure!(
        matches!(url.scheme(), "http" | "https") && url.has_host(),
        "{field}: not an http:// or https:// URL"
    );
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "{field}: a user name or password does not belong in a URL; use `username`, `password` or `token`"
    );
    ensure!(
        url.query().is_none() && url.fragment().is_none(),
        "{field}: a query or fragment does not belong there"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> anyhow::Result<()> {
        toml::from_str::<SourceConfig>(text)?.check()
    }

    #[test]
    fn sources_are_of_three_kinds() {
        for good in [
            "kind = 'directory'\npath = '/srv'",
            "kind = 'http'\nurl = 'https://example.org/images'\nverify = 'always'",
            "kind = 'http'\nurl = 'http://h'\ntoken = { file = '/run/t' }\nrequests.retries = 0",
            "kind = 's3'\nbucket = 'b'\nendpoint = 'http://127.0.0.1:9000'\nprefix = 'a/b'",
            "kind = 'directory'\npath = '/srv'\nidentity = 'stat'",
            "kind = 'directory'\npath = '/srv'\nidentity = 'size'\nverify = 'never'",
            "kind = 'http'\nurl = 'http://h'\nidentity = 'digest'",
            "kind = 's3'\nbucket = 'b'\nendpoint = 'http://h'\nidentity = 'etag'",
        ] {
            check(good).unwrap();
        }
        for (bad, reason) in [
            ("kind = 'ftp'", "ftp"),
            ("kind = 'directory'\npath = '/'\nurl = 'x'", "url"),
            ("kind = 'http'\nurl = 'http://h'\nretries = 1", "retries"),
            (
                "kind = 'http'\nurl = 'http://h'\nrequests.tries = 1",
                "tries",
            ),
            ("kind = 'http'\nurl = 'file:///etc'", "not an http"),
            ("kind = 'http'\nurl = 'http://a:hush@h'", "does not belong"),
            (
                "kind = 'http'\nurl = 'http://h/?sig=hush'",
                "does not belong",
            ),
            ("kind = 'http'\nurl = 'http://h'\npassword = 'hush'", "env"),
            (
                "kind = 'http'\nurl = 'http://h'\npassword = { hush = 'hush' }",
                "env",
            ),
            (
                "kind = 'http'\nurl = 'http://h'\npassword = { env = 'a', hush = 'hush' }",
                "env",
            ),
            (
                "kind = 'http'\nurl = 'http://h'\npassword = { env = 'P' }",
                "username",
            ),
            ("kind = 's3'\nbucket = ''\nendpoint = 'http://h'", "bucket"),
            (
                "kind = 'directory'\npath = '/'\nidentity = 'etag'",
                "a directory has",
            ),
            (
                "kind = 'http'\nurl = 'http://h'\nidentity = 'stat'",
                "for directories",
            ),
            (
                "kind = 'http'\nurl = 'http://h'\nidentity = 'digest'\nverify = 'never'",
                "looks for none",
            ),
            ("kind = 'http'\nurl = 'http://h'\nidentity = 'name'", "name"),
        ] {
            // Its whole text would hold the line that it is about.
            let error = match toml::from_str::<SourceConfig>(bad) {
                Ok(config) => format!("{:#}", config.check().unwrap_err()),
                Err(error) => error.message().to_owned(),
            };
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_worker_gets_what_the_keeper_read() {
        let text =
            "kind = 's3'\nbucket = 'b'\nendpoint = 'http://h'\nsession-token = { env = 'T' }";
        let config: SourceConfig = toml::from_str(text).unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<SourceConfig>(&json).unwrap(), config);
    }
}
