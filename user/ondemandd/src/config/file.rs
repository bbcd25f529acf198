// SPDX-License-Identifier: MIT OR Apache-2.0

//! The file that `--config` names. `user/ondemandd/ondemandd.toml` is one, with every field explained.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::path::Path;
use std::path::PathBuf;

use anyhow::anyhow;
use anyhow::Context;
use serde::Deserialize;

use super::source::SourceConfig;
use crate::cli::FillWay;
use crate::limits::LimitArgs;
use crate::logging::LogFormat;
use crate::metrics::address::MetricsAddress;
use crate::sandbox::SandboxMode;

/// What the file says. All of it may be missing. Paths that are not absolute begin where the daemon was
/// started, as they do on the command line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ConfigFile {
    /// `--cache`
    pub cache: Option<PathBuf>,
    /// `--source`: a directory for all keys that begin with the name of no source.
    pub source: Option<PathBuf>,
    /// The name of one of `sources`, for the same; instead of `source`.
    pub default_source: Option<String>,
    /// `--tag`
    pub tag: Option<String>,
    /// `--device`
    pub device: Option<PathBuf>,
    /// `--timeout`, in seconds.
    pub timeout: Option<u32>,
    /// `--fetch`, in bytes.
    pub fetch: Option<u32>,
    /// `--batch`
    pub batch: Option<NonZeroU32>,
    /// `--fill`
    pub fill: Option<FillWay>,
    /// `--threads`
    pub threads: Option<NonZeroUsize>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
    /// `--metrics`
    pub metrics: Option<MetricsAddress>,
    /// `--user`
    pub user: Option<String>,
    /// `--sandbox`
    pub sandbox: Option<SandboxMode>,
    /// `--run-dir`
    pub run_dir: Option<PathBuf>,
    /// `--brun` and the like, in percent.
    pub limits: LimitArgs,
    /// Sources by their names: the blob B of the source N has the key `N/B`.
    pub sources: BTreeMap<String, SourceConfig>,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no such TOML; then the error names the line, and does not show it: somebody
    /// may have written a secret there.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Self::parse(&text)
            .map_err(|(line, message)| anyhow!("{}:{line}: {message}", path.display()))
    }

    /// Reads a text. An error is a line, counted from 1, and what is wrong there.
    ///
    /// # Errors
    ///
    /// It is no such TOML.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or(text);
            (before.matches('\n').count() + 1, error.message().to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_line_and_shows_no_secret() {
        let bad = |text: &str| ConfigFile::parse(text).unwrap_err();
        let (line, message) = bad("cache = '/c'\nthread = 3\n");
        assert_eq!(line, 2);
        assert!(message.contains("thread"), "{message}");
        assert_eq!(bad("threads = 0").0, 1);
        assert_eq!(bad("fill = 'slow'").0, 1);
        assert_eq!(bad("sandbox = 'maybe'").0, 1);
        assert_eq!(bad("\nmetrics = '0.0.0.0:9464'").0, 2);
        assert_eq!(bad("[limits]\nbruns = 3").0, 2);
        for text in [
            "[sources.web]\nkind = 'http'\nurl = 'http://h'\npassword = 'hush'\n",
            "[sources.web]\nkind = 'http'\nurl = 'http://h'\ntoken = hush\n",
        ] {
            let (line, message) = bad(text);
            assert!((1..=4).contains(&line), "{line}");
            assert!(!message.contains("hush"), "{message}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = ConfigFile::load(Path::new("/nonexistent.toml")).unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent.toml"));
    }
}
