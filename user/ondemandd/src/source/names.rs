// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which source a cookie key belongs to.
//!
//! A key `NAME/REST` is the blob REST of the source NAME, if there is one of that name; any other key is, as a
//! whole, a blob of the default source.

use std::fmt;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use anyhow::Context;
use serde::Deserialize;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::directory::Directory;
use super::remote::Client;
use super::LookupError;
use super::Source;
use super::Store;
use crate::config::source::DirectoryConfig;
use crate::config::source::IdentityBy;
use crate::config::source::SourceConfig;
use crate::config::source::Verify;
use crate::counters::Counters;

/// Names of sources are no longer than this, in bytes: what is left of a key is for the blob.
pub const LONGEST_NAME: usize = 32;

/// What sources there are, as the keeper tells the worker.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceList {
    /// The source of keys that begin with no name.
    pub default: Option<SourceConfig>,
    /// The others, with their names, each once.
    pub named: Vec<(String, SourceConfig)>,
}

/// The sources of a worker that has only one thread yet, and opens no more files afterwards.
#[derive(Debug)]
pub struct PreparedSources {
    default: Option<Prepared>,
    named: Vec<(String, Prepared)>,
}

#[derive(Debug)]
struct Prepared {
    store: PreparedStore,
    verify: Verify,
    identity: IdentityBy,
}

#[derive(Debug)]
enum PreparedStore {
    Directory(Directory),
    Remote(Client),
}

/// The sources of a worker.
#[derive(Debug)]
pub struct Sources {
    default: Option<Source>,
    named: Vec<(String, Source)>,
    /// There if there is a remote source, and alive as long as the sources are.
    _runtime: Option<Runtime>,
}

/// Whether a source may have this name: letters, digits, `-`, `_` and `.`, but no `.` first.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('.')
}

impl SourceList {
    /// One directory, for all keys.
    #[must_use]
    pub fn directory(path: &Path) -> Self {
        let directory = DirectoryConfig {
            path: path.to_owned(),
            verify: Verify::default(),
            identity: None,
        };
        SourceList {
            default: Some(SourceConfig::Directory(directory)),
            named: Vec::new(),
        }
    }

    /// All of them, the default one first, which has no name.
    pub fn iter(&self) -> impl Iterator<Item = &SourceConfig> {
        let named = self.named.iter().map(|(_, source)| source);
        self.default.iter().chain(named)
    }

    /// Whether any of them is remote.
    #[must_use]
    pub fn has_remote(&self) -> bool {
        let mut all = self.iter();
        all.any(|source| !matches!(source, SourceConfig::Directory(_)))
    }

    /// The same with absolute paths, after a look at what can be looked at without the network: directories and
    /// secrets.
    ///
    /// # Errors
    ///
    /// What cannot be found or read.
    pub fn prepared(&self) -> anyhow::Result<Self> {
        let mut list = self.clone();
        if let Some(source) = &mut list.default {
            source.prepare()?;
        }
        for (name, source) in &mut list.named {
            source
                .prepare()
                .with_context(|| format!("the source {name}"))?;
        }
        Ok(list)
    }

    /// Refuses names and sources that make no sense.
    ///
    /// # Errors
    ///
    /// The source, and what is wrong with it.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.default.is_some() || !self.named.is_empty(),
            "there is no source: give --source, or [sources.NAME] in the configuration"
        );
        if let Some(source) = &self.default {
            source.check().context("the default source")?;
        }
        for (name, source) in &self.named {
            ensure!(
                is_name(name),
                "`{}` is no name of a source: letters, digits, `-`, `_`, `.`; at most {LONGEST_NAME}",
                name.escape_debug()
            );
            source
                .check()
                .with_context(|| format!("the source {name}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for SourceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        if let Some(source) = &self.default {
            write!(f, "{source}")?;
            between = ", ";
        }
        for (name, source) in &self.named {
            write!(f, "{between}{name} ({source})")?;
            between = ", ";
        }
        Ok(())
    }
}

impl PreparedSources {
    /// Opens directories, reads secrets and certificates, and makes clients, which count in `counters`; sends
    /// nothing, and starts no thread.
    ///
    /// # Errors
    ///
    /// A directory cannot be opened, a secret cannot be read.
    pub fn open(list: &SourceList, counters: &Arc<Counters>) -> anyhow::Result<Self> {
        let open = |config: &SourceConfig| -> anyhow::Result<Prepared> {
            let store = match config {
                SourceConfig::Directory(directory) => {
                    let path = &directory.path;
                    let directory = Directory::open(path)
                        .with_context(|| format!("cannot open the source {}", path.display()))?;
                    PreparedStore::Directory(directory)
                }
                SourceConfig::Http(http) => PreparedStore::Remote(Client::http(http, counters)?),
                SourceConfig::S3(s3) => PreparedStore::Remote(Client::s3(s3, counters)?),
            };
            Ok(Prepared {
                store,
                verify: config.verify(),
                identity: config.identity(),
            })
        };
        let default = list.default.as_ref().map(open).transpose()?;
        let named = list.named.iter().map(|(name, config)| {
            let source = open(config).with_context(|| format!("the source {name}"))?;
            Ok((name.clone(), source))
        });
        Ok(PreparedSources {
            default,
            named: named.collect::<anyhow::Result<_>>()?,
        })
    }

    fn stores(&self) -> impl Iterator<Item = &PreparedStore> {
        let named = self.named.iter().map(|(_, source)| source);
        self.default.iter().chain(named).map(|it| &it.store)
    }

    /// The directories among them, open.
    pub fn directories(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.stores().filter_map(|store| match store {
            PreparedStore::Directory(directory) => Some(directory.as_fd()),
            PreparedStore::Remote(_) => None,
        })
    }

    /// Whether any of them is remote.
    #[must_use]
    pub fn has_remote(&self) -> bool {
        let mut stores = self.stores();
        stores.any(|store| matches!(store, PreparedStore::Remote(_)))
    }

    /// Starts the threads of the network, if any source needs them.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn start(self) -> anyhow::Result<Sources> {
        let runtime = self.has_remote().then(start_runtime).transpose()?;
        let handle = runtime.as_ref().map(Runtime::handle);
        let start = |source: Prepared| {
            let store = match (source.store, handle) {
                (PreparedStore::Directory(directory), _) => Store::Directory(directory),
                (PreparedStore::Remote(client), Some(handle)) => {
                    Store::Remote(Arc::new(client.on(handle.clone())))
                }
                (PreparedStore::Remote(_), None) => {
                    unreachable!("has_remote() has looked at the same sources")
                }
            };
            Source::new(store, source.verify, source.identity)
        };
        let default = self.default.map(start);
        let named = self.named.into_iter();
        let named = named.map(|(name, source)| (name, start(source))).collect();
        Ok(Sources {
            default,
            named,
            _runtime: runtime,
        })
    }
}

impl Sources {
    /// Prepares sources and starts them.
    ///
    /// # Errors
    ///
    /// As [`PreparedSources::open`] and [`PreparedSources::start`].
    pub fn open(list: &SourceList, counters: &Arc<Counters>) -> anyhow::Result<Self> {
        PreparedSources::open(list, counters)?.start()
    }

    /// All sources; the default one first.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        let named = self.named.iter().map(|(_, source)| source);
        self.default.iter().chain(named)
    }

    /// Which source, by its place in [`Sources::iter`], has a key, and what the blob is called there.
    ///
    /// # Errors
    ///
    /// [`LookupError::NoSource`]
    pub fn find<'a>(&self, key: &'a [u8]) -> Result<(usize, &Source, &'a [u8]), LookupError> {
        let first_named = usize::from(self.default.is_some());
        if let Some(slash) = key.iter().position(|byte| *byte == b'/') {
            let (name, rest) = (&key[..slash], &key[slash + 1..]);
            for (index, (other, source)) in self.named.iter().enumerate() {
                if other.as_bytes() == name {
                    return Ok((first_named + index, source, rest));
                }
            }
        }
        let default = self.default.as_ref().ok_or(LookupError::NoSource)?;
        Ok((0, default, key))
    }
}

/// What connections are driven by. Two threads, so that one that decrypts does not hold up all.
fn start_runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // These look host names up.
        .max_blocking_threads(8)
        .thread_name("ondemandd-net")
        .enable_all()
        .build()
        .context("cannot start the threads of the network")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sources(default: bool, names: &[&str]) -> (tempfile::TempDir, Sources) {
        let root = tempfile::tempdir().unwrap();
        let mut list = SourceList::directory(root.path());
        let any = list.default.clone().unwrap();
        list.named = names
            .iter()
            .map(|name| ((*name).into(), any.clone()))
            .collect();
        if !default {
            list.default = None;
        }
        list.check().unwrap();
        let sources = Sources::open(&list, &Arc::new(Counters::create().unwrap())).unwrap();
        (root, sources)
    }

    #[test]
    fn a_prefix_names_a_source() {
        let (_root, sources) = sources(true, &["web", "s3"]);
        let find = |key: &'static [u8]| {
            let (index, _, rest) = sources.find(key).unwrap();
            (index, rest)
        };
        assert_eq!(find(b"image"), (0, &b"image"[..]));
        assert_eq!(find(b"web"), (0, &b"web"[..]), "no slash");
        assert_eq!(find(b"webb/image"), (0, &b"webb/image"[..]));
        assert_eq!(find(b"web/image"), (1, &b"image"[..]));
        assert_eq!(find(b"s3/a/b"), (2, &b"a/b"[..]));
        assert_eq!(find(b"/web/image"), (0, &b"/web/image"[..]));
        assert_eq!(sources.iter().count(), 3);
    }

    #[test]
    fn without_default_a_name_is_needed() {
        let (_root, sources) = sources(false, &["web"]);
        assert_eq!(sources.find(b"web/x").unwrap().0, 0);
        let error = sources.find(b"x").unwrap_err();
        assert_eq!(error, LookupError::NoSource);
        // And what is left must still be a plain name.
        let (_, source, rest) = sources.find(b"web/../x").unwrap();
        assert_eq!(source.lookup(rest).unwrap_err(), LookupError::BadName);
    }

    #[test]
    fn a_directory_needs_no_runtime() {
        let (_root, sources) = sources(true, &["a"]);
        assert!(sources._runtime.is_none());
    }

    #[test]
    fn names_are_plain() {
        for good in ["a", "web-1", "A.b_c", &"x".repeat(LONGEST_NAME)] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "\u{e4}",
            &"x".repeat(LONGEST_NAME + 1),
        ] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(SourceList::default().check().is_err());
    }

    proptest! {
        #[test]
        fn no_byte_of_a_key_is_lost(key in prop::collection::vec(any::<u8>(), 0..40), named in any::<bool>()) {
            let (_root, sources) = sources(true, &["n"]);
            let key = if named { [b"n/", &key[..]].concat() } else { key };
            let (index, _, rest) = sources.find(&key).unwrap();
            if key.starts_with(b"n/") {
                prop_assert_eq!((index, rest), (1, &key[2..]));
            } else {
                prop_assert_eq!((index, rest), (0, &key[..]));
            }
        }
    }
}
