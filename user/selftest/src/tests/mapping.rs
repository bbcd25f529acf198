// SPDX-License-Identifier: MIT OR Apache-2.0

//! File systems that map a block before its data is written: old contents of the disk would be served for it, after
//! a write that failed or a loss of power.

use std::path::Path;
use std::process::Command as Program;
use std::process::Stdio;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Fill;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::kmsg::KernelLog;
use crate::harness::skip;
use crate::harness::Context;
use crate::harness::SmallDisk;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d54_not_through_memory",
        "old contents of the disk, where an ext4 maps blocks before it writes them",
        not_through_memory,
    )
    .within(180),
    Test::new(
        "d54_not_at_all",
        "data that never came to the disk, of an ext4 whose direct writes go through the page cache",
        not_at_all,
    ),
    Test::new(
        "d54_accepted",
        "an ext4 that is refused without reason",
        accepted,
    )
    .within(120),
    Test::new("d54_accepted_xfs", "an XFS that is refused", accepted_xfs),
    Test::new(
        "d54_accepted_btrfs",
        "a Btrfs that is refused",
        accepted_btrfs,
    ),
];

/// The journal of a small disk is small.
const JOURNAL: &[&str] = &["-J", "size=4"];

/// An ext4, and what it lacks.
struct Case {
    mkfs: &'static [&'static str],
    tune: &'static [&'static str],
    options: &'static str,
    lacks: &'static str,
}

/// Made as usual, mounted with options.
const fn mounted(options: &'static str, lacks: &'static str) -> Case {
    Case {
        mkfs: JOURNAL,
        tune: &[],
        options,
        lacks,
    }
}

/// Made as usual, with other defaults.
const fn tuned(tune: &'static [&'static str], lacks: &'static str) -> Case {
    Case {
        mkfs: JOURNAL,
        tune,
        options: "user_xattr",
        lacks,
    }
}

impl Case {
    fn disk(&self, t: &Context) -> Result<SmallDisk> {
        SmallDisk::made_with(t, self.mkfs, self.tune, self.options)
    }

    fn name(&self) -> String {
        format!("{:?} {:?} {}", self.mkfs, self.tune, self.options)
    }
}

/// Whether a cache can be bound there so. If not, the log has to name what is missing.
fn bind(t: &Context, dir: &Path, fill: Fill, lacks: Option<&str>) -> Result<()> {
    let log = KernelLog::end()?;
    let device = t.device()?;
    // The other way is the default, also of modules that know one alone.
    if fill == Fill::Buffered || t.fills_in_memory() {
        device.send(&Command::Fill(fill))?;
    }
    device.send(&Command::Dir(dir.to_owned()))?;
    let told = errno_of(device.send(&Command::BindOnDemand))?;
    let Some(lacks) = lacks else {
        ensure!(told.is_none(), "{fill:?}: {told:?}");
        return Ok(());
    };
    ensure!(told == Some(Errno::OPNOTSUPP), "{fill:?}: {told:?}");
    let lines = log.lines();
    ensure!(
        lines.iter().any(|line| line.text.contains(lacks)),
        "{fill:?}: no line names '{lacks}': {lines:?}"
    );
    Ok(())
}

/// Whoever was refused, or has gone, holds nothing.
fn unmount(dir: &Path) -> Result<()> {
    eventually(
        "the disk can be unmounted",
        SOON,
        || match rustix::mount::unmount(dir, UnmountFlags::empty()) {
            Err(Errno::BUSY) => Ok(false),
            other => other.map(|()| true).context("umount of the disk"),
        },
    )
}

fn not_through_memory(t: &Context) -> Result<()> {
    for case in [
        mounted("user_xattr,dioread_lock", "dioread_nolock"),
        mounted("user_xattr,nodioread_nolock", "dioread_nolock"),
        mounted("user_xattr,nodelalloc", "delalloc"),
        mounted("user_xattr,data=writeback", "data=ordered"),
        mounted("user_xattr,noload", "a journal"),
        Case {
            mkfs: &["-O", "^has_journal"],
            tune: &[],
            options: "user_xattr",
            lacks: "a journal",
        },
        // What ext4 does not show among its options.
        tuned(&["-o", "nodelalloc"], "delalloc"),
        tuned(&["-o", "journal_data_writeback"], "data=ordered"),
        tuned(&["-E", "mount_opts=dioread_lock"], "dioread_nolock"),
    ] {
        let name = case.name();
        let disk = case.disk(t).with_context(|| name.clone())?;
        let dir = disk.cache_dir()?;
        bind(t, &dir, Fill::Buffered, Some(case.lacks)).with_context(|| name.clone())?;
        // It is the way that is refused, not the disk.
        bind(t, &dir, Fill::Direct, None).with_context(|| name.clone())?;
        unmount(&disk.dir)?;
    }
    Ok(())
}

fn not_at_all(t: &Context) -> Result<()> {
    for case in [
        Case {
            mkfs: &["-O", "^extent,^64bit", "-J", "size=4"],
            tune: &[],
            options: "user_xattr",
            lacks: "extents",
        },
        mounted("user_xattr,data=journal", "direct writes"),
        tuned(&["-o", "journal_data"], "direct writes"),
    ] {
        let name = case.name();
        let disk = case.disk(t).with_context(|| name.clone())?;
        let dir = disk.cache_dir()?;
        bind(t, &dir, Fill::Direct, Some(case.lacks)).with_context(|| name.clone())?;
        bind(t, &dir, Fill::Buffered, Some("lacks")).with_context(|| name.clone())?;
        unmount(&disk.dir)?;
    }
    Ok(())
}

fn accepted(t: &Context) -> Result<()> {
    for case in [
        mounted("user_xattr", ""),
        mounted("user_xattr,data=ordered,commit=1", ""),
        mounted("user_xattr,dioread_nolock,delalloc", ""),
        tuned(&["-o", "journal_data_ordered"], ""),
        Case {
            mkfs: &["-b", "1024", "-J", "size=4"],
            tune: &[],
            options: "user_xattr",
            lacks: "",
        },
        // Of a default and an option the option counts.
        Case {
            options: "user_xattr,delalloc",
            ..tuned(&["-o", "nodelalloc"], "")
        },
    ] {
        let name = case.name();
        let disk = case.disk(t).with_context(|| name.clone())?;
        let dir = disk.cache_dir()?;
        for fill in [Fill::Buffered, Fill::Direct] {
            bind(t, &dir, fill, None).with_context(|| name.clone())?;
        }
        unmount(&disk.dir)?;
    }
    Ok(())
}

fn accepted_xfs(t: &Context) -> Result<()> {
    accepted_as(t, "xfs", &["-q"])
}

fn accepted_btrfs(t: &Context) -> Result<()> {
    accepted_as(t, "btrfs", &["-q"])
}

/// Another file system, if there is one.
fn accepted_as(t: &Context, kind: &str, arguments: &[&str]) -> Result<()> {
    let image = t.dir.join(kind);
    std::fs::File::create(&image)?.set_len(400 << 20)?;
    let made = Program::new(format!("mkfs.{kind}"))
        .args(arguments)
        .arg(&image)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return skip(format!("no mkfs.{kind}"));
    }
    let dir = t.mount_point()?;
    let mounted = Program::new("mount")
        .args(["-t", kind, "-o", "loop"])
        .args([&image, &dir])
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return skip(format!("the kernel has no {kind}"));
    }
    for fill in [Fill::Buffered, Fill::Direct] {
        bind(t, &dir, fill, None)?;
    }
    unmount(&dir)
}
