// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether an OPEN may be answered with the version that the source has now.
//!
//! [`judge`] decides; here is what it takes: the record, the keeper, which may change files, and what is told of
//! an image that has changed. That is told once by each worker, however many readers ask.

use std::collections::HashSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;

use cachefiles_proto::AnonymousFile;
use rustix::io::Errno;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use super::Server;
use crate::counters::count;
use crate::record::judge;
use crate::record::judge::judge;
use crate::record::judge::Guard;
use crate::record::judge::Opening;
use crate::record::judge::Verdict;
use crate::record::Carried;
use crate::record::Entry;
use crate::record::Name;
use crate::record::Record;
use crate::source::token::Identity;
use crate::source::Found;
use crate::source::LookupError;

/// Of so many objects it is known what was told of them.
const MOST_TOLD: usize = 4096;

/// Has the stored file of an object made stale, on the disk; or says why it cannot.
pub type MakeStale = dyn Fn(&Name) -> Result<(), String> + Send + Sync;

/// Which versions the cache has data of.
pub struct Versions {
    /// The record.
    pub record: Record,
    /// Who keeps versions apart.
    pub guard: Guard,
    /// The kernel sends an OPEN that failed again and again, as the C module does.
    pub insists: bool,
    /// What an OPEN with this file is for, if that matters.
    pub opening: fn(&AnonymousFile) -> Opening,
    /// Asks the keeper.
    pub make_stale: Box<MakeStale>,
    /// Objects whose change was told.
    told: Mutex<HashSet<Name>>,
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versions")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// What was known of an object when its OPEN came.
pub(super) struct Known {
    pub(super) entry: Option<Entry>,
    carried: Option<Carried>,
}

/// A module without tokens, which is the C module, does not let a file be searched before it has been told that
/// the file is right. On any other one it cannot be told.
#[must_use]
pub fn opening_of(file: &AnonymousFile) -> Opening {
    match file.seek_data(0) {
        Err(error) if error.errno() == Some(Errno::NOBUFS) => Opening::First,
        Ok(_) | Err(_) => Opening::Again,
    }
}

impl Versions {
    /// What is in a record, with a keeper who changes files.
    #[must_use]
    pub fn new(record: Record, guard: Guard, make_stale: Box<MakeStale>) -> Self {
        Versions {
            record,
            guard,
            insists: false,
            opening: opening_of,
            make_stale,
            told: Mutex::default(),
        }
    }

    pub(super) fn known(&self, key: &Name) -> Result<Known, LookupError> {
        let (entry, carried) = self.record.get(key).map_err(|error| {
            LookupError::Record(format!("the record of versions cannot be read: {error}"))
        })?;
        Ok(Known { entry, carried })
    }

    /// Whether a change of this object is told for the first time since it was the same. An OPEN and a READ say the
    /// same change in other words.
    fn tells(&self, key: &Name) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST_TOLD {
            told.clear();
        }
        told.insert(key.clone())
    }
}

impl Known {
    /// The cache has data that was held against a manifest.
    pub(super) fn had_manifest(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.manifest)
    }

    /// What has changed when it is this version now.
    pub(super) fn change(&self, now: &Identity) -> String {
        match &self.entry {
            Some(entry) if entry.token != now.token => judge::change(&entry.what, &now.what),
            // It was noted with an earlier OPEN.
            Some(Entry {
                changed: Some(change),
                ..
            }) => change.clone(),
            _ => format!("is {}", now.what),
        }
    }
}

impl Server {
    /// Sees to it that whatever the cache has of an object is of the version that was found. If it cannot be, it is
    /// an error; or it says with which size the object is to be opened that gets no data.
    pub(super) fn admit(
        &self,
        file: &AnonymousFile,
        key: &Name,
        found: &Found,
        known: &Known,
    ) -> Result<Option<u64>, LookupError> {
        let versions = &self.versions;
        let opening = match versions.guard {
            Guard::Kernel => Opening::Again,
            Guard::Record => (versions.opening)(file),
        };
        let manifest = found.manifest.is_some();
        let entry = known.entry.as_ref();
        let identity = &found.identity;
        let entry = match judge(
            (entry, known.carried),
            versions.guard,
            opening,
            (identity, found.blob.size()),
            manifest,
        ) {
            Verdict::Answer => return Ok(None),
            Verdict::Changed(change) => return self.refuse(found, entry, change),
            Verdict::Unknown => {
                let change = "what is cached of it is of a version that nobody knows";
                return self.refuse(found, entry, change.to_owned());
            }
            Verdict::Note(entry) => entry,
            Verdict::Replace(entry) => {
                let change = known.change(identity);
                info!(%key, change, "another version: what is stored of the old one is dropped");
                (versions.make_stale)(key).map_err(|error| {
                    LookupError::Record(format!(
                        "{change}, and what is stored cannot be dropped: {error}"
                    ))
                })?;
                entry
            }
        };
        versions.record.note(key, &entry).map_err(|error| {
            LookupError::Record(format!("its version cannot be recorded: {error}"))
        })?;
        Ok(None)
    }

    /// Refuses an OPEN of what is in use, in the way that the kernel takes.
    fn refuse(
        &self,
        found: &Found,
        entry: Option<&Entry>,
        change: String,
    ) -> Result<Option<u64>, LookupError> {
        count(&self.counters.changed_blobs, 1);
        match self.versions.insists {
            true => Ok(Some(entry.map_or(found.blob.size(), |entry| entry.size))),
            false => Err(LookupError::Changed(change)),
        }
    }

    /// Tells that what is mounted is not what the source has any more.
    pub(super) fn note_change(&self, key: &Name, name: &str, change: &str) {
        if !self.versions.tells(key) {
            debug!(name, change, "changed");
            return;
        }
        warn!(
            name,
            change,
            "the image has changed while it is in use: its readers go on with what is cached, and get EIO for \
             what is not, until it was unmounted and mounted again"
        );
        if let Err(error) = self.versions.record.note_change(key, change) {
            error!(name, %error, "the record of versions cannot be written");
        }
    }

    /// Takes note that what is mounted is what the source has, if something else was told before.
    pub(super) fn note_same(&self, key: &Name, known: &Known) {
        let mut told = self
            .versions
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        told.remove(key);
        drop(told);
        let entry = self.versions.record.get(key).map(|(entry, _)| entry);
        let noted = match entry {
            Ok(Some(entry)) if entry.changed.is_some() && known.entry.is_some() => {
                let same = Entry {
                    changed: None,
                    ..entry
                };
                self.versions.record.note(key, &same)
            }
            other => other.map(drop),
        };
        if let Err(error) = noted {
            error!(%key, %error, "the record of versions cannot be written");
        }
    }
}
