// SPDX-License-Identifier: MIT OR Apache-2.0

//! Secrets: where they are, and how they are kept out of logs.
//!
//! The configuration and the command line say only where a secret is; the worker that needs it reads it.

use std::fmt;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Context;
use serde::de;
use serde::de::MapAccess;
use serde::de::Unexpected;
use serde::de::Visitor;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

/// Secrets are no longer than this.
const LONGEST: usize = 16 << 10;

/// Where a secret is: `{ file = "PATH" }` or `{ env = "NAME" }`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretPlace {
    /// In a file, which ends with a newline or without.
    File(PathBuf),
    /// In a variable of the daemon's environment.
    Env(String),
}

/// A secret that was read. It cannot be printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

/// As derived, but for one thing: who writes a secret where its place belongs does not find it in an
/// error message.
impl<'de> Deserialize<'de> for SecretPlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlaceVisitor)
    }
}

struct PlaceVisitor;

impl<'de> Visitor<'de> for PlaceVisitor {
    type Value = SecretPlace;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "{ file = \"PATH\" } or { env = \"NAME\" }; a secret itself does not belong here",
        )
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::invalid_type(Unexpected::Other("text"), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let place = match map.next_key::<String>()?.as_deref() {
            Some("file") => SecretPlace::File(map.next_value()?),
            Some("env") => SecretPlace::Env(map.next_value()?),
            _ => return Err(de::Error::invalid_type(Unexpected::Map, &self)),
        };
        match map.next_key::<String>()? {
            None => Ok(place),
            Some(_) => Err(de::Error::invalid_length(2, &self)),
        }
    }
}

impl SecretPlace {
    /// Reads the secret.
    ///
    /// # Errors
    ///
    /// The file or variable is not there, empty, longer than 16 KiB, or no text of one line. The error
    /// names the place and never holds any of the secret.
    pub fn read(&self) -> anyhow::Result<Secret> {
        let text = match self {
            SecretPlace::File(path) => std::fs::read_to_string(path)
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::InvalidData => anyhow::anyhow!("is not UTF-8"),
                    _ => error.into(),
                })
                .with_context(|| format!("cannot read the secret in {}", path.display()))?,
            SecretPlace::Env(name) => std::env::var(name)
                .map_err(|error| match error {
                    std::env::VarError::NotPresent => anyhow::anyhow!("is not set"),
                    std::env::VarError::NotUnicode(_) => anyhow::anyhow!("is not UTF-8"),
                })
                .with_context(|| format!("no secret in the variable {name}"))?,
        };
        Secret::new(text.trim_end_matches(['\r', '\n']))
            .with_context(|| format!("the secret {self}"))
    }
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretPlace::File(path) => write!(f, "in the file {}", path.display()),
            SecretPlace::Env(name) => write!(f, "in the variable {name}"),
        }
    }
}

impl Secret {
    fn new(text: &str) -> anyhow::Result<Self> {
        ensure!(!text.is_empty(), "is empty");
        ensure!(text.len() <= LONGEST, "is longer than {LONGEST} bytes");
        // What goes into a header may not break out of it.
        ensure!(
            !text.contains(|c: char| c.is_control()),
            "holds control characters"
        );
        Ok(Secret(text.to_owned()))
    }

    /// The secret itself, for whoever sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_secret_without_its_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let place = SecretPlace::File(path.clone());
        assert!(place.read().is_err());
        std::fs::write(&path, "hush hush\r\n").unwrap();
        let secret = place.read().unwrap();
        assert_eq!(secret.expose(), "hush hush");
        assert!(!format!("{secret:?}").contains("hush"));
    }

    #[test]
    fn no_error_tells_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let place = SecretPlace::File(path.clone());
        let long = "hush".repeat(5000);
        for bad in [
            &b"hush\nhush"[..],
            b"hush\0",
            b"",
            b"\n",
            b"hush\xff",
            long.as_bytes(),
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = format!("{:#?} {0:#}", place.read().unwrap_err());
            assert!(!error.contains("hush"), "{error}");
            assert!(error.contains("key"), "{error}");
        }
        let place = SecretPlace::Env("ONDEMANDD_TEST_NO_SUCH_VARIABLE".into());
        let error = format!("{:#}", place.read().unwrap_err());
        assert!(error.contains("ONDEMANDD_TEST_NO_SUCH_VARIABLE"), "{error}");
    }
}
