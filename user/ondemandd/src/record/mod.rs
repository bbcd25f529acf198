// SPDX-License-Identifier: MIT OR Apache-2.0

//! The record: which version each object was opened with, in a file beside the cache.
//!
//! A stored file says its size, and on some modules which version it is of. This says it on all of them, and for
//! longer than any process lives. The worker adds a line before it answers an OPEN with something else than what
//! stands there, and the line is on the disk before the answer is sent: so after a loss of power there may be a
//! version that nothing was fetched of, but never bytes whose version is not known.
//!
//! An entry has the version that was answered last, and whether the stored file can have bytes of that one
//! only: it is *sole* then. A module that keeps tokens replaces a stale file by itself, at a time of its own; then
//! the record knows both versions and not which one is there, and who has nothing but the record has to drop the
//! file. What has no entry has no stored file, for when the record is made there are no files; but see
//! [`Carried`].
//!
//! Lines are only added, by one `write` each, under a lock of the file: the worker has it open before it gives
//! up the right to open files, and may not replace any; the keeper adds lines, too. It writes the file anew
//! without what is no longer needed when a cache is bound, since nobody else has it open then.
//!
//! | module | what it is |
//! |---|---|
//! | `line` | the text of a line |
//! | [`begin`] | what the keeper does with the file before there is a worker |
//! | [`judge`] | what an OPEN is answered |

pub mod begin;
pub mod judge;
mod line;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use cachefiles_proto::Token;
use rustix::fs::AtFlags;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::StatxFlags;
use thiserror::Error;

use self::line::Line;
pub use self::line::Name;

/// The file, in the directory of the cache.
pub const FILE: &str = "ondemandd.versions";

/// It is not read if it is longer: a million objects take half of it.
const LONGEST: u64 = 512 << 20;

/// What is known of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The version that was answered last.
    pub token: Token,
    /// Its size, in bytes.
    pub size: u64,
    /// The stored file, if there is one, has bytes of that version only, whatever the kernel knows of it.
    pub sole: bool,
    /// They were held against a manifest.
    pub manifest: bool,
    /// What that version is, for people.
    pub what: String,
    /// The source has another one now than what is mounted: what it was and is.
    pub changed: Option<String>,
}

/// The record was begun while a cache was in use: what has no entry may have a stored file, of a version that
/// nobody knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carried {
    /// An ondemandd that kept no record had the cache.
    Old,
    /// There was a record, and it could not be used.
    Lost,
}

/// Why a record cannot be used, or added to.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file cannot be opened, read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line is not what was written.
    #[error("line {0} is damaged")]
    Damaged(usize),
    /// The file is a copy, and so may the stored files be: a hole in one may have become zeros.
    #[error("it is a copy, and what is stored may be one, too")]
    Copy,
    /// It begins with something else.
    #[error("it is none, or of another version")]
    Version,
    /// It is longer than any that was written.
    #[error("its {0} bytes are too many")]
    Long(u64),
    /// An earlier failure has left it in a state that is not known.
    #[error("an earlier failure may have spoiled it; restart the service")]
    Spoiled,
}

impl From<rustix::io::Errno> for RecordError {
    fn from(errno: rustix::io::Errno) -> Self {
        RecordError::Io(errno.into())
    }
}

/// What all lines together say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct State {
    pub(crate) entries: HashMap<Name, Entry>,
    pub(crate) carried: Option<Carried>,
}

/// The file, open.
#[derive(Debug)]
pub struct Record {
    file: File,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// So much of the file is in it, in bytes and lines.
    read: u64,
    lines: usize,
    spoiled: bool,
}

impl Record {
    /// Opens the record at a path, and reads it.
    ///
    /// # Errors
    ///
    /// A [`RecordError`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        Self::from_fd(file)
    }

    /// The same for whoever only looks, at whatever there is.
    ///
    /// # Errors
    ///
    /// A [`RecordError`].
    pub(crate) fn look(path: &Path) -> Result<State, RecordError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let record = Self::from_fd(rustix::fs::open(path, flags, Mode::empty())?)?;
        let inner = record.inner.into_inner();
        Ok(inner.unwrap_or_else(PoisonError::into_inner).state)
    }

    fn from_fd(file: OwnedFd) -> Result<Self, RecordError> {
        let record = Record {
            file: file.into(),
            inner: Mutex::default(),
        };
        record.catch_up(&mut record.lock())?;
        if record.lines() == 0 {
            return Err(RecordError::Version);
        }
        Ok(record)
    }

    /// What is known of an object, and whether that is all that there may be.
    ///
    /// # Errors
    ///
    /// What others have added cannot be read.
    pub fn get(&self, name: &Name) -> Result<(Option<Entry>, Option<Carried>), RecordError> {
        let mut inner = self.lock();
        self.catch_up(&mut inner)?;
        let state = &inner.state;
        Ok((state.entries.get(name).cloned(), state.carried))
    }

    /// Notes with which version an object is answered. It is on the disk then.
    ///
    /// # Errors
    ///
    /// It may not be on the disk: nothing may be fetched of that version.
    pub fn note(&self, name: &Name, entry: &Entry) -> Result<(), RecordError> {
        let line = Line::Version(name.clone(), entry.clone());
        self.add(&line, true)
    }

    /// Notes that what is mounted is no longer what the source has, for who asks for the status.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn note_change(&self, name: &Name, change: &str) -> Result<(), RecordError> {
        self.add(&Line::Changed(name.clone(), change.to_owned()), false)
    }

    /// Forgets that an object had a manifest: its stored file is gone.
    ///
    /// # Errors
    ///
    /// It may not be on the disk.
    pub(crate) fn forget(&self, name: &Name) -> Result<(), RecordError> {
        self.add(&Line::Forget(name.clone()), true)
    }

    /// What all lines say.
    pub(crate) fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// How many lines there are.
    pub(crate) fn lines(&self) -> usize {
        self.lock().lines
    }

    fn add(&self, line: &Line, is_durable: bool) -> Result<(), RecordError> {
        let mut inner = self.lock();
        let text = line.to_text();
        rustix::io::retry_on_intr(|| rustix::fs::flock(&self.file, FlockOperation::LockExclusive))?;
        let added = self.append(&mut inner, text.as_bytes(), is_durable);
        rustix::fs::flock(&self.file, FlockOperation::Unlock)?;
        added?;
        self.catch_up(&mut inner)
    }

    /// Nobody else adds anything meanwhile.
    fn append(&self, inner: &mut Inner, text: &[u8], durable: bool) -> Result<(), RecordError> {
        self.catch_up(inner)?;
        let end = inner.read;
        // Half a line, of somebody who died while writing it, and so has answered nothing.
        if self.file.metadata()?.len() > end {
            self.file.set_len(end)?;
        }
        let written = (&self.file).write_all(text).and_then(|()| match durable {
            true => self.file.sync_data(),
            false => Ok(()),
        });
        if let Err(error) = written {
            // What may not be on the disk must not look as if it were.
            if self.file.set_len(end).is_err() {
                inner.spoiled = true;
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Reads what was added since. Half a line at the end is not there yet.
    fn catch_up(&self, inner: &mut Inner) -> Result<(), RecordError> {
        if inner.spoiled {
            return Err(RecordError::Spoiled);
        }
        let len = self.file.metadata()?.len();
        if len == inner.read {
            return Ok(());
        }
        if len > LONGEST {
            return Err(RecordError::Long(len));
        }
        let more = len.checked_sub(inner.read).ok_or(RecordError::Version)?;
        let mut text = vec![0; usize::try_from(more).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut text, inner.read)?;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Some(whole) = line.strip_suffix(b"\n") else {
                break;
            };
            let line_is = Line::parse(whole);
            if inner.lines == 0 {
                match line_is {
                    Some(Line::First(own)) if own == own_mark(&self.file)? => {}
                    Some(Line::First(_)) => return Err(RecordError::Copy),
                    _ => return Err(RecordError::Version),
                }
            } else {
                let line_is = line_is.ok_or(RecordError::Damaged(inner.lines + 1))?;
                let damaged = RecordError::Damaged(inner.lines + 1);
                inner.state.apply(line_is).ok_or(damaged)?;
            }
            inner.lines += 1;
            inner.read += u64::try_from(line.len()).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Nobody panics while holding it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// `None` for what stands in no such place.
    fn apply(&mut self, line: Line) -> Option<()> {
        match line {
            Line::First(_) => return None,
            Line::Carried(carried) => self.carried = Some(carried),
            Line::Version(name, entry) => {
                self.entries.insert(name, entry);
            }
            Line::Changed(name, change) => {
                if let Some(entry) = self.entries.get_mut(&name) {
                    entry.changed = Some(change);
                }
            }
            Line::Forget(name) => {
                if let Some(entry) = self.entries.get_mut(&name) {
                    entry.manifest = false;
                }
            }
        }
        Some(())
    }
}

/// What a copy of a file does not have: its inode, and when that was made, where the file system knows.
fn own_mark(file: &File) -> Result<String, RecordError> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted)?;
    let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let born = match has_birth {
        true => format!("{}.{:09}", stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
        false => "-".to_owned(),
    };
    Ok(format!("{}@{born}", stat.stx_ino))
}

#[cfg(test)]
mod tests;
