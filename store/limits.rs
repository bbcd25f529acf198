// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How full the backing file system may become.
//!
//! A cache watches two resources, blocks and files, and three marks on each. Below *cull* the daemon
//! is asked to remove old objects, it may stop at *run*, and below *stop* nothing new is stored. The
//! marks are percentages of what the file system holds in all, and always
//! `0% <= stop < cull < run < 100%`.
//!
//! C header: `include/linux/statfs.h`, whose block and file counts the percentages are taken of.

use crate::errno::Errno;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// File system blocks, the commands that begin with `b`.
    Blocks,
    /// Inodes, the commands that begin with `f`.
    Files,
}

/// Which of the three marks of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Culling ends when this much is available again.
    Run,
    /// Culling begins when less than this is available.
    Cull,
    /// Nothing more is stored when less than this is available.
    Stop,
}

/// The marks of one resource, in percent of its total.
///
/// # Invariants
///
/// `stop < cull < run < 100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    run: u8,
    cull: u8,
    stop: u8,
}

/// The marks of one resource, in units of that resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// See [`Mark::Run`].
    pub run: u64,
    /// See [`Mark::Cull`].
    pub cull: u64,
    /// See [`Mark::Stop`].
    pub stop: u64,
}

/// The limits of one cache: the marks of both resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    blocks: Thresholds,
    files: Thresholds,
}

impl Thresholds {
    /// Moves one mark to `percent`.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the three marks would no longer be in order; they are then left as they were. To
    /// raise all of them one has to begin with *run*, to lower them with *stop*.
    fn set(&mut self, mark: Mark, percent: u8) -> Result<(), Errno> {
        let mut new = *self;
        match mark {
            Mark::Run => new.run = percent,
            Mark::Cull => new.cull = percent,
            Mark::Stop => new.stop = percent,
        }
        if new.stop < new.cull && new.cull < new.run && new.run < 100 {
            // INVARIANT: Just checked.
            *self = new;
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// The percentage of one mark, in `0..=99`.
    pub const fn percent(&self, mark: Mark) -> u8 {
        match mark {
            Mark::Run => self.run,
            Mark::Cull => self.cull,
            Mark::Stop => self.stop,
        }
    }

    /// The marks in units, of a resource of which there are `total`.
    ///
    /// The hundredth part is rounded down first, as the C module does it: the products cannot
    /// overflow, and a file system that counts no files (`total` 0) has no limit on them.
    pub fn amounts(&self, total: u64) -> Amounts {
        let hundredth = total / 100;
        Amounts {
            run: hundredth * u64::from(self.run),
            cull: hundredth * u64::from(self.cull),
            stop: hundredth * u64::from(self.stop),
        }
    }
}

impl Limits {
    /// What holds until the daemon says otherwise: run at 7 %, cull at 5 %, stop at 1 %.
    pub const DEFAULT: Self = {
        // INVARIANT: 1 < 5 < 7 < 100.
        let thresholds = Thresholds {
            run: 7,
            cull: 5,
            stop: 1,
        };
        Self {
            blocks: thresholds,
            files: thresholds,
        }
    };

    /// Moves one mark of one resource to `percent`.
    ///
    /// # Errors
    ///
    /// `EINVAL` when `stop < cull < run < 100` would not hold for the resource, given the marks it has
    /// now; nothing is changed then.
    pub fn set(&mut self, resource: Resource, mark: Mark, percent: u8) -> Result<(), Errno> {
        match resource {
            Resource::Blocks => self.blocks.set(mark, percent),
            Resource::Files => self.files.set(mark, percent),
        }
    }

    /// The marks for a file system of so many blocks and files.
    pub fn marks(&self, blocks: u64, files: u64) -> Marks {
        Marks {
            blocks: self.blocks.amounts(blocks),
            files: self.files.amounts(files),
        }
    }

    /// The marks of one resource.
    pub const fn of(&self, resource: Resource) -> &Thresholds {
        match resource {
            Resource::Blocks => &self.blocks,
            Resource::Files => &self.files,
        }
    }
}

/// The marks of a bound cache, in units of its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Of blocks.
    pub blocks: Amounts,
    /// Of files.
    pub files: Amounts,
}

/// How much of both resources is left, by the marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Of one there is less than *stop*: nothing is stored, and culling begins.
    Full,
    /// Of one there is less than *cull*: culling begins.
    Low,
    /// Between *cull* and *run*: culling goes on if it is under way.
    Middling,
    /// There is *run* or more of both: culling ends.
    Ample,
}

impl Marks {
    /// The level at which so many blocks and files are left.
    pub fn level(&self, blocks: u64, files: u64) -> Level {
        self.blocks.level(blocks).min(self.files.level(files))
    }
}

impl Amounts {
    fn level(&self, left: u64) -> Level {
        if left < self.stop {
            Level::Full
        } else if left < self.cull {
            Level::Low
        } else if left < self.run {
            Level::Middling
        } else {
            Level::Ample
        }
    }
}

impl Level {
    /// Whether something may be stored at this level.
    pub fn may_store(self) -> bool {
        self != Level::Full
    }

    /// Whether the cache wants culling at this level, if it does or does not want it `now`.
    pub fn wants_culling(self, now: bool) -> bool {
        match self {
            Level::Full | Level::Low => true,
            Level::Middling => now,
            Level::Ample => false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
