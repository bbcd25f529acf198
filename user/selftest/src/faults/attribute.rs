// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files of debugfs that one kind of fault is set up with.
//!
//! They are kept open for writing: to open one allocates, and such an allocation may be the one that fails. They have
//! no positions: what one holds can be read once an opening.
//!
//! Kernel: `lib/fault-inject.c`, `Documentation/fault-injection/fault-injection.rst`.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;

/// A file that holds a number, or a truth value as 0 or 1.
#[derive(Debug)]
struct Setting {
    file: File,
    path: PathBuf,
}

impl Setting {
    fn open(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(name);
        let file = File::options().write(true).open(&path);
        let file = file.with_context(|| {
            format!("no {}: the kernel is not the debug kernel", path.display())
        })?;
        Ok(Setting { file, path })
    }

    fn set(&self, value: u64) -> Result<()> {
        let text = value.to_string();
        let written = (&self.file).write_all(text.as_bytes());
        written.with_context(|| format!("{value} to {}", self.path.display()))
    }

    /// Allocates.
    fn get(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.path)?;
        let number = text.trim().parse();
        number.with_context(|| format!("{} holds {text:?}", self.path.display()))
    }
}

/// One kind of fault. The kernel counts what could fail; what is the last of `interval` does, once.
#[derive(Debug)]
pub struct Attribute {
    probability: Setting,
    interval: Setting,
    times: Setting,
    task_filter: Setting,
    require: [Setting; 2],
    reject: [Setting; 2],
}

/// How many callers are looked at: all that the kernel looks at.
const DEPTH: u64 = 32;

impl Attribute {
    /// The files in `dir`; nothing fails yet. Each fault is told in the log, with its stack.
    ///
    /// # Errors
    ///
    /// One of the files is not there.
    pub fn open(dir: &Path) -> Result<Self> {
        let open = |name| Setting::open(dir, name);
        let attribute = Attribute {
            probability: open("probability")?,
            interval: open("interval")?,
            times: open("times")?,
            task_filter: open("task-filter")?,
            require: [open("require-start")?, open("require-end")?],
            reject: [open("reject-start")?, open("reject-end")?],
        };
        attribute.enable(false)?;
        open("space")?.set(0)?;
        open("verbose")?.set(2)?;
        open("stacktrace-depth")?.set(DEPTH)?;
        Ok(attribute)
    }

    /// What fails is the last of so many, once. Nothing is counted before [`Attribute::enable`].
    ///
    /// # Errors
    ///
    /// What `write` says, as with all that follows.
    pub fn set_up(&self, interval: u64) -> Result<()> {
        self.enable(false)?;
        self.interval.set(interval)?;
        self.times.set(1)
    }

    /// Begins or ends to count and to fail.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn enable(&self, on: bool) -> Result<()> {
        self.probability.set(if on { 100 } else { 0 })
    }

    /// Whether something has failed since it was set up. Nothing is to fail meanwhile.
    ///
    /// # Errors
    ///
    /// What `read` says.
    pub fn has_failed(&self) -> Result<bool> {
        Ok(self.times.get()? == 0)
    }

    /// Counts only for tasks that have said `make-it-fail`.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn only_told_tasks(&self, on: bool) -> Result<()> {
        self.task_filter.set(u64::from(on))
    }

    /// Counts only what has a caller in `require` and none in `reject`; without `require` all.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn only_callers(&self, filter: Option<&Callers>) -> Result<()> {
        let (require, reject) = match filter {
            Some(filter) => (filter.require.clone(), filter.reject.clone()),
            None => (0..u64::MAX, 0..0),
        };
        for (files, range) in [(&self.require, require), (&self.reject, reject)] {
            files[0].set(range.start)?;
            files[1].set(range.end)?;
        }
        Ok(())
    }
}

/// Ranges of the kernel's text.
#[derive(Clone, Debug)]
pub struct Callers {
    /// One caller must be in it.
    pub require: std::ops::Range<u64>,
    /// None may be in it.
    pub reject: std::ops::Range<u64>,
}
