// SPDX-License-Identifier: MIT OR Apache-2.0

//! Has the n-th allocation or disk request from now on fail.
//!
//! The kernel has no such setting for what work items do: it knows an interval, and has each last one of
//! an interval fail, by a count that it neither shows nor sets back. So the count is kept here. It is
//! known after a fault, since it was a multiple of the interval then; after a run without a fault this
//! process itself allocates until there is one.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;

use anyhow::bail;
use anyhow::Context as _;
use anyhow::Result;
use mockd::image::Aligned;
use rustix::event::EventfdFlags;
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;

use super::attribute::Attribute;
use super::attribute::Callers;
use super::plan::Kind;
use super::symbols::Symbols;

/// The module whose allocations fail.
const MODULE: &str = "cachefiles_ondemand";

/// No run of an operation counts more than this.
const MOST: u64 = 4096;

/// What allocates on behalf of the kernel's own checks, which do without: no fault is wasted on it.
const KMEMLEAK: &[&str] = &[
    "mem_pool_alloc",
    "__alloc_object",
    "__create_object",
    "create_object",
];
const KASAN: &[&str] = &["stack_depot_save_flags"];

/// One kind of fault.
#[derive(Debug)]
pub struct Injector {
    kind: Kind,
    attribute: Attribute,
    callers: Option<Callers>,
    interval: u64,
    count: Count,
    /// The store's disk, if its requests are to fail.
    disk: Option<PathBuf>,
}

/// What the kernel has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Exactly(u64),
    /// This or more, by less than [`MOST`].
    From(u64),
}

impl Count {
    /// After a run in which what makes the interval full was to fail.
    fn after(self, interval: u64, failed: bool) -> Self {
        match (self, failed) {
            // With an interval of 1 everything fails, and nothing is counted.
            (_, true) if interval > 1 => Count::Exactly(interval),
            (count, true) => count,
            (Count::Exactly(count) | Count::From(count), false) => Count::From(count),
        }
    }
}

impl Injector {
    /// Nothing fails yet. `count` in the kernel is 0 after a boot.
    ///
    /// # Errors
    ///
    /// The kernel is not the debug kernel; the module is not loaded.
    pub fn new(kind: Kind) -> Result<Self> {
        let dir = Path::new("/sys/kernel/debug").join(kind.directory());
        let attribute = Attribute::open(&dir)?;
        let set = |name: &str, value: &str| {
            let path = dir.join(name);
            fs::write(&path, value).with_context(|| path.display().to_string())
        };
        // Allocations that may wait are what fails, too.
        if kind != Kind::Disk {
            set("ignore-gfp-wait", "N")?;
        }
        if kind == Kind::Page {
            set("ignore-gfp-highmem", "N")?;
            set("min-order", "0")?;
        }
        let callers = match kind {
            // The journal and the write-back of the store work for the module in tasks of their own.
            Kind::Disk => None,
            Kind::Slab | Kind::Page => {
                let symbols = Symbols::of_kernel()?;
                let checks = if kind == Kind::Slab { KMEMLEAK } else { KASAN };
                Some(Callers {
                    require: symbols.of_module(MODULE)?,
                    reject: symbols.of_functions(checks),
                })
            }
        };
        Ok(Injector {
            kind,
            attribute,
            callers,
            interval: 1,
            count: Count::Exactly(0),
            disk: None,
        })
    }

    /// Which kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The store is on this disk from now on.
    ///
    /// # Errors
    ///
    /// It has no such setting.
    pub fn use_disk(&mut self, name: &str) -> Result<()> {
        if self.kind == Kind::Disk {
            let setting = format!("/sys/block/{name}/make-it-fail");
            fs::write(&setting, "1").context(setting)?;
            self.disk = Some(Path::new("/dev").join(name));
        }
        Ok(())
    }

    /// The `nth` from [`Injector::on`] on, from 1, is to fail.
    ///
    /// # Errors
    ///
    /// The kernel's count cannot be found.
    pub fn arm(&mut self, nth: u64) -> Result<()> {
        let count = match self.count {
            Count::Exactly(count) => count,
            Count::From(count) => self.find_count(count)?,
        };
        self.count = Count::Exactly(count);
        self.interval = count + nth;
        self.attribute.only_callers(self.callers.as_ref())?;
        self.attribute.only_told_tasks(false)?;
        self.attribute.set_up(self.interval)
    }

    /// Counts from now on.
    ///
    /// # Errors
    ///
    /// What `write` says, as with [`Injector::off`].
    pub fn on(&self) -> Result<()> {
        self.attribute.enable(true)
    }

    /// Counts no more until [`Injector::on`].
    ///
    /// # Errors
    ///
    /// As above.
    pub fn off(&self) -> Result<()> {
        self.attribute.enable(false)
    }

    /// Whether something has failed since [`Injector::arm`].
    ///
    /// # Errors
    ///
    /// What `read` says.
    pub fn has_failed(&self) -> Result<bool> {
        self.attribute.has_failed()
    }

    /// The end of a run; whether something has failed in it.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn disarm(&mut self) -> Result<bool> {
        self.off()?;
        let failed = self.has_failed()?;
        self.count = self.count.after(self.interval, failed);
        Ok(failed)
    }

    /// The count, which is `least` or up to [`MOST`] more: counts on, with this task alone, to a number
    /// that is more.
    fn find_count(&mut self, least: u64) -> Result<u64> {
        let goal = least + MOST;
        self.attribute.only_callers(None)?;
        self.attribute.only_told_tasks(true)?;
        self.attribute.set_up(goal)?;
        fail_this_task(true)?;
        let mut failed = false;
        for _ in 0..=MOST {
            self.attribute.enable(true)?;
            self.count_on();
            self.attribute.enable(false)?;
            failed = self.attribute.has_failed()?;
            if failed {
                break;
            }
        }
        fail_this_task(false)?;
        if !failed {
            bail!("{} counts nothing of this process", self.kind);
        }
        Ok(goal)
    }

    /// Does something that is counted. Whatever it says: one of them is to fail.
    fn count_on(&self) {
        match self.kind {
            Kind::Slab => drop(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)),
            Kind::Page => {
                if let Ok((_reader, writer)) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK) {
                    let _ = rustix::io::write(&writer, &[0]);
                }
            }
            Kind::Disk => {
                let _ = self.disk.as_deref().map(read_directly);
            }
        }
    }
}

/// Reads the first block of a disk.
fn read_directly(disk: &Path) -> Result<()> {
    let file = rustix::fs::open(
        disk,
        OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let file = File::from(file);
    let mut block = Aligned::new(&[0; 4096]);
    file.read_exact_at(block.get_mut(), 0)?;
    Ok(())
}

/// Whether what this task does is counted while only tasks are that have said so.
fn fail_this_task(on: bool) -> Result<()> {
    const PATH: &str = "/proc/thread-self/make-it-fail";
    let mut file = File::options().write(true).open(PATH).context(PATH)?;
    file.write_all(if on { b"1" } else { b"0" }).context(PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_tells_the_count() {
        let count = Count::Exactly(40);
        assert_eq!(count.after(47, true), Count::Exactly(47));
        assert_eq!(count.after(47, false), Count::From(40));
        assert_eq!(Count::From(40).after(47, true), Count::Exactly(47));
    }

    #[test]
    fn an_interval_of_one_does_not_count() {
        assert_eq!(Count::Exactly(0).after(1, true), Count::Exactly(0));
        assert_eq!(Count::Exactly(0).after(1, false), Count::From(0));
    }
}
