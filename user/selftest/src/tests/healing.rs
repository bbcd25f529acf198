// SPDX-License-Identifier: MIT OR Apache-2.0

//! A store in which something is missing, stale or in the way: it is put right, or given up.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::fs::Mode;
use rustix::fs::XattrFlags;
use rustix::fs::CWD;

use crate::harness::eventually;
use crate::harness::kmsg::KernelLog;
use crate::harness::procfs;
use crate::harness::same;
use crate::harness::store::make_stale;
use crate::harness::store::object_file;
use crate::harness::store::read_once;
use crate::harness::store::Immutable;
use crate::harness::store::ATTRIBUTE;
use crate::harness::Context;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d09_missing_attributes",
        "a store that cannot be used any more because an attribute is missing",
        missing_attributes,
    ),
    Test::new(
        "d09_truncated_file",
        "a stored file that lost its end, which is read as zeros",
        truncated_file,
    ),
    Test::new(
        "d09_no_file",
        "a name that stands for no file, and for ever keeps the object from being stored",
        no_file,
    ),
    Test::new(
        "d11_volume_that_cannot_be_buried",
        "a kworker that tries for ever to bury a volume",
        volume_that_cannot_be_buried,
    ),
];

fn missing_attributes(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let expected = t.images.contents("small")?;
    let fill = |what: &str| -> Result<()> {
        let mut daemon = t.daemon_in(&dir)?;
        daemon.images = vec![t.images.get("small")?];
        let data =
            read_once(t, &mut daemon, "domain_id=dom,fsid=small").context(what.to_owned())?;
        same(what, &data, &expected)
    };
    fill("a new store")?;
    let file = object_file(&dir, "erofs,dom", "small")?;
    let volume = dir.join("cache/Ierofs,dom");
    for path in [&file, &volume] {
        for value in [None, Some(&b""[..]), Some(b"x"), Some(&[7; 60])] {
            let what = format!("{} with {value:?}", path.display());
            match value {
                None => rustix::fs::removexattr(path, ATTRIBUTE),
                Some(value) => rustix::fs::setxattr(path, ATTRIBUTE, value, XattrFlags::empty()),
            }
            .context(what.clone())?;
            fill(&what)?;
        }
    }
    Ok(())
}

fn truncated_file(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let expected = t.images.contents("small")?;
    let image = t.images.get("small")?;
    let file = object_file(&dir, "erofs,dom", "small")?;
    for len in [image.size, 8192, 6000, 100, 0, image.size + 4096] {
        // The first one fills the store.
        if file.exists() {
            fs::File::options().write(true).open(&file)?.set_len(len)?;
        }
        let mut daemon = t.daemon_in(&dir)?;
        daemon.images = vec![image.clone()];
        let what = format!("a file of {len} bytes");
        let data = read_once(t, &mut daemon, "domain_id=dom,fsid=small").context(what.clone())?;
        same(&what, &data, &expected)?;
        drop(daemon);
        let now = file.metadata()?.len();
        ensure!(now == image.size, "{what} has {now} bytes afterwards");
    }
    Ok(())
}

fn no_file(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let expected = t.images.contents("small")?;
    let image = t.images.get("small")?;
    let file = object_file(&dir, "erofs,dom", "small")?;
    let outside = t.dir.join("outside");
    fs::write(&outside, "kept")?;
    for what in [
        "a new store",
        "a directory",
        "a link",
        "a dead link",
        "a fifo",
    ] {
        // The first one makes the directories.
        if file.exists() {
            fs::remove_file(&file)?;
            match what {
                "a directory" => {
                    fs::create_dir(&file).and_then(|()| fs::write(file.join("x"), ""))?
                }
                "a link" => std::os::unix::fs::symlink(&outside, &file)?,
                "a dead link" => std::os::unix::fs::symlink("/nowhere", &file)?,
                _ => rustix::fs::mkfifoat(CWD, &file, Mode::RWXU)?,
            }
        }
        for round in ["made", "stored"] {
            let mut daemon = t.daemon_in(&dir)?;
            daemon.images = vec![image.clone()];
            let what = format!("{what}, {round}");
            let data =
                read_once(t, &mut daemon, "domain_id=dom,fsid=small").context(what.clone())?;
            same(&what, &data, &expected)?;
            let again = daemon.reads();
            ensure!(
                round == "made" || again.is_empty(),
                "{what}: READs of what was stored: {again:?}"
            );
        }
        let kind = file.symlink_metadata()?.file_type();
        ensure!(kind.is_file(), "{what}: the object is {kind:?}");
    }
    ensure!(fs::read(&outside)? == b"kept", "a link was followed");
    let graves = fs::read_dir(dir.join("graveyard"))?.count();
    ensure!(graves == 1, "{graves} directories were buried");
    Ok(())
}

/// How long each kernel worker has run, in ticks, by its process id. They come and go.
fn worker_ticks() -> HashMap<i32, u32> {
    procfs::processes()
        .iter()
        .filter(|process| process.name.starts_with("kworker"))
        .filter_map(|process| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok()?;
            // After the name: the state is field 3, the times are fields 14 and 15.
            let rest = stat.get(stat.rfind(')')? + 1..)?.to_owned();
            let mut fields = rest.split_whitespace().skip(11);
            let user: u32 = fields.next()?.parse().ok()?;
            Some((process.pid, user + fields.next()?.parse::<u32>().ok()?))
        })
        .collect()
}

fn volume_that_cannot_be_buried(t: &Context) -> Result<()> {
    const OPTIONS: &str = "domain_id=dom,fsid=small";
    const MOMENT: Duration = Duration::from_millis(500);
    let dir = t.new_dir()?;
    let expected = t.images.contents("small")?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images = vec![t.images.get("small")?];
    read_once(t, &mut daemon, OPTIONS)?;
    drop(daemon);
    let volume = dir.join("cache/Ierofs,dom");
    make_stale(&volume)?;
    let flag = Immutable::new(&volume)?;

    let mut daemon = t.daemon_in(&dir)?;
    daemon.images = vec![t.images.get("small")?];
    let log = KernelLog::end()?;
    for round in 0..3 {
        let mut mount = t.mount(OPTIONS, &t.mount_point()?)?;
        daemon
            .serve(&mut mount)?
            .fails(&format!("mount {round}"), MOUNT_FAILS)?;
    }
    let lines = log.lines().len();
    ensure!(lines < 50, "{lines} lines in the kernel's log");
    // What is measured is that nothing goes on. A thread that spins uses all of a processor in every moment;
    // an emulated processor that waits for one of the host's only seems to work.
    let per_second = f64::from(u32::try_from(rustix::param::clock_ticks_per_second())?);
    eventually(
        "a moment in which the kernel's workers are idle",
        SOON,
        || {
            let (before, start) = (worker_ticks(), Instant::now());
            while start.elapsed() < MOMENT {
                std::thread::park_timeout(MOMENT);
            }
            let took = start.elapsed().as_secs_f64();
            let ticks: u32 = worker_ticks()
                .iter()
                .map(|(pid, now)| now.saturating_sub(before.get(pid).copied().unwrap_or(0)))
                .sum();
            Ok(f64::from(ticks) < per_second * took / 2.0)
        },
    )?;
    drop(flag);
    let data = read_once(t, &mut daemon, OPTIONS)?;
    same("the file", &data, &expected)?;
    let graves = fs::read_dir(dir.join("graveyard"))?.count();
    ensure!(graves == 1, "{graves} directories were buried");
    Ok(())
}
