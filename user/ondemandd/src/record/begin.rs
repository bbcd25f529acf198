// SPDX-License-Identifier: MIT OR Apache-2.0

//! The record before there is a worker: it is found, or made.
//!
//! A record says what it does of a store in which nothing else has written. If there is none, or one that cannot
//! be used, then nothing is known of what is stored, and all of it goes: to the graveyard, before the cache is
//! bound, when nobody uses it. If the cache is in use, since another keeper has bound it, it stays, and the record
//! says that it may not be relied on; see [`Carried`].

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use anyhow::bail;
use anyhow::Context;
use rustix::fs::AtFlags;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use tracing::info;
use tracing::warn;

use super::line::Line;
use super::own_mark;
use super::Carried;
use super::Record;
use super::RecordError;
use super::State;
use super::FILE;
use crate::cull::store;
use crate::cull::store::Store;

/// The file while it is written.
const NEW: &str = "ondemandd.versions.new";

/// A cache's directory that no other keeper uses, as long as this is there.
#[derive(Debug)]
pub struct Claim {
    dir: OwnedFd,
}

impl Claim {
    /// Claims a directory; `None` if another keeper has it.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn new(dir: &Path) -> anyhow::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let cannot = || format!("cannot open {}", dir.display());
        let dir = rustix::fs::open(dir, flags, Mode::empty()).with_context(cannot)?;
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Claim { dir })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).with_context(cannot),
        }
    }
}

/// Sees to the record of a cache that is about to be bound, in the directory `dir`, which is claimed.
///
/// # Errors
///
/// It cannot be made, or what is stored cannot be dropped.
pub fn for_bind(claim: &Claim, dir: &Path) -> anyhow::Result<()> {
    let store = Store::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    let path = dir.join(FILE);
    match Record::open(&path) {
        Ok(record) if record.state().carried.is_none() => return tidy(claim, &store, &record),
        Ok(_) => drop_all(&store, "the record was begun while the cache was in use")?,
        Err(RecordError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            drop_all(
                &store,
                "an ondemandd that kept no record of versions, or another daemon, has filled it",
            )?;
        }
        Err(error) => {
            let why = format!("its record, {}: {error}", path.display());
            drop_all(&store, &why)?;
        }
    }
    write(claim, &State::default())
}

/// Sees to the record of a cache that is bound, and may be in use.
///
/// # Errors
///
/// It cannot be made.
pub fn for_takeover(claim: Option<&Claim>, dir: &Path) -> anyhow::Result<()> {
    let path = dir.join(FILE);
    let carried = match Record::open(&path) {
        Ok(_) => return Ok(()),
        Err(RecordError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            info!(
                "the cache has been filled by an ondemandd that kept no record of versions: what is mounted is \
                 taken for what it was, and what is mounted from now on is fetched again"
            );
            Carried::Old
        }
        Err(error) => {
            warn!(
                %error,
                path = %path.display(),
                "the record of versions cannot be used: what is mounted reads on what is cached, and the rest of \
                 it only after it was unmounted and mounted again"
            );
            Carried::Lost
        }
    };
    let state = State {
        carried: Some(carried),
        ..State::default()
    };
    match claim {
        Some(claim) => write(claim, &state),
        None => bail!("another keeper uses the cache in {}", dir.display()),
    }
}

/// Leaves out what has no stored file any more, and lines that others have overtaken.
fn tidy(claim: &Claim, store: &Store, record: &Record) -> anyhow::Result<()> {
    let mut state = record.state();
    let before = state.entries.len();
    state.entries.retain(|name, entry| {
        // Nothing is mounted.
        entry.changed = None;
        let Some(place) = name.place() else {
            return false;
        };
        let file = store.directory_of(&place).and_then(|dir| {
            rustix::fs::statat(&dir, place.name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)
        });
        // Whoever cannot tell keeps it.
        !matches!(file, Err(Errno::NOENT | Errno::NOTDIR))
    });
    let after = state.entries.len();
    // The first line is of none.
    if record.lines() == after + 1 {
        return Ok(());
    }
    info!(
        objects = after,
        gone = before - after,
        "record of versions tidied up"
    );
    write(claim, &state)
}

/// Moves all volumes to the graveyard, which is emptied later.
fn drop_all(store: &Store, why: &str) -> anyhow::Result<()> {
    let cache = match store.cache() {
        Ok(cache) => cache,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno).context("cannot open `cache`"),
    };
    let mut volumes = Vec::new();
    // Nothing breaks the loop.
    let _ = store::for_each_entry(&cache, |name| {
        if name.as_bytes().first() == Some(&b'I') {
            volumes.push(name.to_owned());
        }
        ControlFlow::Continue(())
    })
    .context("cannot read `cache`")?;
    if volumes.is_empty() {
        return Ok(());
    }
    warn!(
        why,
        volumes = volumes.len(),
        "the cache has data of versions that nobody knows: it is dropped, and fetched again when it is wanted"
    );
    let graveyard = store.make_graveyard().context("cannot make `graveyard`")?;
    for volume in &volumes {
        bury(&cache, volume, &graveyard)
            .with_context(|| format!("cannot move {} to `graveyard`", volume.to_string_lossy()))?;
    }
    // Gone for good before anything says what is there.
    rustix::fs::fsync(&graveyard).context("fsync of `graveyard`")?;
    rustix::fs::fsync(&cache).context("fsync of `cache`")
}

fn bury(cache: &OwnedFd, volume: &OsStr, graveyard: &OwnedFd) -> Result<(), Errno> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    let mut number = u64::try_from(nanoseconds & u128::from(u64::MAX)).unwrap_or(0);
    loop {
        let grave = OsString::from(format!("{number:016x}"));
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(cache, volume, graveyard, &grave, flags) {
            Err(Errno::EXIST) => number = number.wrapping_add(1),
            other => return other,
        }
    }
}

/// Writes the file as a whole.
fn write(claim: &Claim, state: &State) -> anyhow::Result<()> {
    write_new(claim, state).with_context(|| format!("cannot write {FILE} in the cache's directory"))
}

fn write_new(claim: &Claim, state: &State) -> anyhow::Result<()> {
    let dir = &claim.dir;
    match rustix::fs::unlinkat(dir, NEW, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, NEW, flags, Mode::RUSR | Mode::WUSR)?;
    let mut file = File::from(file);
    // Its inode is known once it is there.
    let mut text = Line::First(own_mark(&file)?).to_text();
    text.extend(
        state
            .carried
            .map(|carried| Line::Carried(carried).to_text()),
    );
    for (name, entry) in &state.entries {
        text += &Line::Version(name.clone(), entry.clone()).to_text();
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    rustix::fs::renameat(dir, NEW, dir, FILE)?;
    rustix::fs::fsync(dir.as_fd())?;
    Ok(())
}
