// SPDX-License-Identifier: MIT OR Apache-2.0

//! Daemons that do wrong as processes: they fork, run out of descriptors, live in a mount namespace
//! of their own, write nonsense, or all of this by chance.

use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Readiness;
use rustix::io::Errno;

use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::mock::Reader;
use crate::harness::store::object_file;
use crate::harness::wait::at_once;
use crate::harness::Context;
use crate::harness::Stage;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "mockd_forked_child_keeps_files",
        "an object that is reopened while a child holds it, or not when the child dies",
        child_keeps_files,
    )
    .within(180),
    Test::new(
        "mockd_forked_child_keeps_device",
        "readers that hang, or a cache that ends, when a child alone holds the device",
        child_keeps_device,
    )
    .within(180),
    Test::new(
        "mockd_without_descriptors",
        "an OPEN that is lost because the daemon had no descriptor left for a while",
        without_descriptors,
    )
    .within(180),
    Test::new(
        "mockd_in_a_mount_namespace",
        "a daemon that cannot cull from a mount namespace of its own, or culls what is in use",
        mount_namespace,
    )
    .within(180),
    Test::new(
        "mockd_restores_and_writes_nonsense",
        "a message that is lost or doubled by restore, nonsense or a buffer that is too small",
        restores_and_nonsense,
    )
    .within(180),
    Test::new(
        "mockd_chaos",
        "anything that a daemon can bring about by chance",
        chaos,
    )
    .within(180),
];

fn child_keeps_files(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain"])?;
    let reader = stage.reader("plain", 0, 128 << 10)?;
    let mut mock = stage.mock(
        "[[rule]]\non = \"read\"\nnth = 2\ndo = { fork-keep = \"files\" }\n\
         [[rule]]\non = \"read\"\nnth = 4\ndo = { die = \"mid-fill\" }",
    )?;
    mock.died()?;
    ensure!(mock.kept()?.len() == 1, "no child:\n{}", mock.tail());
    // The object is open as long as the child lives, and its READ belongs to nobody.
    let _second = stage.mock("")?;
    let ready = stage
        .device
        .wait(Readiness::MESSAGE, Some(Duration::ZERO))?;
    ensure!(!ready.message, "there is a message though the file is open");
    ensure!(reader.waits()?, "the reader did not wait for the child");
    mock.end_kept()?;
    reader.finish()
}

fn child_keeps_device(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain"])?;
    let reader = stage.reader("plain", 0, 128 << 10)?;
    let mut mock = stage.mock(
        "[[rule]]\non = \"read\"\nnth = 2\ndo = { fork-keep = \"device\" }\n\
         [[rule]]\non = \"read\"\nnth = 4\ndo = { die = \"before-complete\" }",
    )?;
    mock.died()?;
    ensure!(mock.kept()?.len() == 1, "no child:\n{}", mock.tail());
    // The supervisor goes: the device is the child's alone.
    drop(stage);
    let busy = errno_of(t.device())?;
    ensure!(busy == Some(Errno::BUSY), "the device: {busy:?}");
    ensure!(reader.waits()?, "the reader did not wait");
    let start = Instant::now();
    mock.end_kept()?;
    reader.fails()?;
    at_once("the reader failed", start.elapsed())?;
    eventually("the device is free", SOON, || {
        Ok(errno_of(t.device())?.is_none())
    })
}

fn without_descriptors(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin"])?;
    let readers = vec![
        stage.reader("plain", 0, 128 << 10)?,
        stage.reader("twin", 0, 128 << 10)?,
    ];
    for reader in &readers {
        eventually("a reader waits", SOON, || {
            Ok(reader.task.blocked_in(libc::SYS_pread64))
        })?;
    }
    // Both objects are to be reopened: the second OPEN meets the limit.
    // It is met if mockd runs once in that time.
    let ms = 10 * ondemand_deadline::percent();
    let mock = stage.mock(&format!(
        "[[rule]]\non = \"open\"\nnth = 1\ndo = {{ exhaust-fds = {ms} }}"
    ))?;
    let done = readers.into_iter().try_for_each(Reader::finish);
    done.with_context(|| mock.tail())?;
    ensure!(mock.said("read: Too many open files")?, "{}", mock.tail());
    Ok(())
}

fn mount_namespace(t: &Context) -> Result<()> {
    let mut stage = Stage::new(t, &["plain", "small"])?;
    let file = object_file(&stage.cache, "erofs,small", "small")?;
    let plain = object_file(&stage.cache, "erofs,plain", "plain")?;
    let script = |command: &str, what: &std::path::Path| {
        let path = what.display();
        format!("mount-namespace = true\n[[tick]]\nms = 20\ndo = {{ {command} = \"{path}\" }}")
    };
    let ours = std::fs::read_link("/proc/self/ns/mnt")?;
    // Its readers bring the files their names.
    let mut mock = stage.mock(&script("inuse", &file))?;
    stage.reader("plain", 0, 128 << 10)?.finish()?;
    stage.reader("small", 0, usize::MAX)?.finish()?;
    mock.until_said(&format!(
        "inuse {}: Device or resource busy",
        file.display()
    ))?;
    mock.end()?;
    let own = mock.log()?;
    let own = own.lines().find(|line| line.starts_with("mount namespace"));
    let own = own.context("no mount namespace")?;
    ensure!(!own.ends_with(&*ours.to_string_lossy()), "it is in ours");

    // Neither is culled while it is mounted.
    for path in [&file, &plain] {
        let mut mock = stage.mock(&script("cull", path))?;
        mock.until_said(&format!("cull {}: Device or resource busy", path.display()))?;
        mock.end()?;
        ensure!(path.exists(), "{} is gone", path.display());
    }
    // A namespace made before it would keep the mount.
    stage.unmount("small")?;
    let mock = stage.mock(&script("cull", &file))?;
    mock.until_said(&format!("cull {}: done", file.display()))?;
    ensure!(!file.exists(), "{} is still there", file.display());
    // It is fetched again, and the other one goes on.
    stage.mount("small")?;
    stage.reader("small", 0, usize::MAX)?.finish()?;
    stage.reader("plain", 0, 256 << 10)?.finish()
}

fn restores_and_nonsense(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin"])?;
    let mock = stage.mock(
        "threads = 3\n[[tick]]\nms = 3\ndo = { garbage = 2 }\n\
         [[tick]]\nms = 5\ndo = { restore = 2 }\n\
         [[rule]]\non = \"read\"\nevery = 9\ndo = { close-early = \"before\" }\n\
         [[rule]]\non = \"open\"\nevery = 2\ndo = { restore = 1 }",
    )?;
    let readers = vec![
        stage.reader("plain", 0, 128 << 10)?,
        stage.reader("twin", 0, 128 << 10)?,
    ];
    let done = readers.into_iter().try_for_each(Reader::finish);
    done.with_context(|| mock.tail())?;
    let log = mock.log()?;
    for part in ["was accepted", "read of 8 bytes"] {
        ensure!(!log.contains(part), "{part}:\n{log}");
    }
    Ok(())
}

/// Names the seed of `mockd_chaos`; without it the time is taken.
const SEED: &str = "ONDEMAND_CHAOS_SEED";

fn chaos(t: &Context) -> Result<()> {
    const LIVES: u64 = 8;
    const LIFE: Duration = Duration::from_millis(500);
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().context(SEED)?,
        Err(_) => std::time::UNIX_EPOCH.elapsed()?.as_secs() << 8,
    };
    println!("{SEED}={seed}");
    let stage = Stage::new(t, &["plain", "twin", "lz4"])?;
    let readers = [
        stage.insisting_reader("plain", 256 << 10)?,
        stage.insisting_reader("twin", 256 << 10)?,
        stage.insisting_reader("lz4", 256 << 10)?,
        stage.insisting_reader("lz4", 256 << 10)?,
    ];
    for life in 0..LIVES {
        let mut mock = crate::harness::Mock::chaos(t, &stage.device, seed + life)?;
        if !mock.ends_within(LIFE)? {
            mock.end()?;
        }
        mock.died().context("not by SIGKILL")?;
        // What a child holds stays open, and waits for the child.
        mock.end_kept()?;
        println!("{}", mock.log()?);
    }
    stage.finish(readers)
}
