// SPDX-License-Identifier: MIT OR Apache-2.0

//! Deadlines: `timeout SECONDS`, and requests that nobody answers.

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::expect_errno;
use crate::harness::kmsg::KernelLog;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Image;
use crate::harness::Stops;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;
use crate::tests::opening::many_openings;
use crate::tests::races::short;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d17_timeout_command",
        "a deadline that cannot be, that is set too late, or that is there unasked",
        timeout_command,
    ),
    Test::new(
        "d17_delivered_read_ends",
        "a READ that a silent daemon holds for ever, or whose late answer is taken",
        delivered_read,
    ),
    Test::new(
        "d17_queued_read_ends",
        "a READ that nobody fetches, and that is shown after its reader has gone",
        queued_read,
    ),
    Test::new(
        "d12_mount_ends",
        "a mount that waits for a silent daemon for ever, or an OPEN that stays in the way",
        mount_ends,
    ),
    Test::new(
        "d17_reopening_ends",
        "a READ that waits for ever for a daemon that never comes back",
        reopening_ends,
    ),
    Test::new(
        "d17_answered_in_time",
        "a deadline that takes what was answered, or counts from the mount on",
        answered_in_time,
    ),
    Test::new(
        "d17_stop_expiry_newer_queued",
        "a request that ends late, since the work that looks for it was queued for a newer one",
        newer_queued,
    ),
    Test::new(
        "d17_expiry_is_told",
        "a request that vanishes without a word in the log or the trace",
        told,
    ),
    Test::new(
        "d17_close_before_deadline",
        "deadline work that outlives its cache",
        close_before_deadline,
    ),
    Test::new(
        "d18_many_expire",
        "unanswered OPENs that hold up the opening or reopening of others, or that never end",
        many_expire,
    )
    .within(180),
];

/// A daemon whose requests have so many seconds.
fn daemon(t: &Context, seconds: u32, images: &[&str]) -> Result<Daemon> {
    t.daemon_with(&t.new_dir()?, &[Command::Timeout(seconds)], images)
}

/// Waits for a task that nobody answers, and tells how long it took since `begun`.
fn ends(task: &mut Task, begun: Instant, errors: &[Errno]) -> Result<Duration> {
    let what = task.what().to_owned();
    task.wait(SOON)?.fails(&what, errors)?;
    let took = begun.elapsed();
    // The work runs at the first tick after the deadline; earlier it must not.
    ensure!(
        took >= Duration::from_secs(u64::from(short())),
        "{what} ended after {took:?} already"
    );
    Ok(took)
}

fn timeout_command(t: &Context) -> Result<()> {
    let device = t.device()?;
    device
        .send(&Command::Timeout(5))
        .context("timeout SECONDS")?;
    for text in ["timeout", "timeout 86401", "timeout -1", "timeout 5s"] {
        let result = device.write_bytes(text.as_bytes()).map(drop);
        expect_errno(text, result, &[Errno::INVAL])?;
    }
    device.send(&Command::Timeout(0))?;
    device.send(&Command::Dir(t.new_dir()?))?;
    device.send(&Command::BindOnDemand)?;
    let late = errno_of(device.send(&Command::Timeout(5)))?;
    ensure!(late == Some(Errno::BUSY), "timeout after bind: {late:?}");
    Ok(())
}

fn delivered_read(t: &Context) -> Result<()> {
    let mut daemon = daemon(t, short(), &["plain"])?;
    let image = daemon.images[0].clone();
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    let begun = Instant::now();
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    ends(&mut reader, begun, &[Errno::IO])?;
    let object = daemon.object(read.object_id)?;
    let late = errno_of(object.file.read_complete(read.msg_id))?;
    ensure!(late == Some(Errno::INVAL), "the late answer: {late:?}");
    read_first_block(t, &mut daemon, &image, &at)
}

/// The next reader is served as if nothing had been.
fn read_first_block(t: &Context, daemon: &mut Daemon, image: &Image, at: &Path) -> Result<()> {
    drop_caches()?;
    read_block(t, daemon, image, at, 0)
}

fn read_block(
    t: &Context,
    daemon: &mut Daemon,
    image: &Image,
    at: &Path,
    block: usize,
) -> Result<()> {
    let range = block * 4096..(block + 1) * 4096;
    let mut reader = t.block_reader(at, range.start, 4096)?;
    let data = daemon.serve(&mut reader)?.ok("a read that is answered")?;
    same("a block", &data, &t.images.contents(&image.name)?[range])
}

/// Between two blocks of `plain` that are read until `all` has passed: it has 256 of them, and a fast
/// machine would come to its end.
fn pace(all: Duration) {
    std::thread::park_timeout(all / 100);
}

fn queued_read(t: &Context) -> Result<()> {
    let mut daemon = daemon(t, short(), &["plain"])?;
    let image = daemon.images[0].clone();
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    let begun = Instant::now();
    let mut reader = t.block_reader(&at, 0, 4096)?;
    ends(&mut reader, begun, &[Errno::IO])?;
    daemon.expect_nothing()?;
    read_first_block(t, &mut daemon, &image, &at)
}

fn mount_ends(t: &Context) -> Result<()> {
    let mut daemon = daemon(t, short(), &["small"])?;
    let at = t.mount_point()?;
    for answered_late in [true, false] {
        let begun = Instant::now();
        let mut mount = t.mount("fsid=small", &at)?;
        let open = daemon.expect_open()?;
        ends(&mut mount, begun, MOUNT_FAILS)?;
        if answered_late {
            let late = daemon.copen(open.msg_id, 16384);
            expect_errno("the late copen", late, &[Errno::INVAL])?;
        }
    }
    t.mounted(&mut daemon, "fsid=small")?;
    Ok(())
}

fn reopening_ends(t: &Context) -> Result<()> {
    let mut daemon = daemon(t, short(), &["plain"])?;
    let image = daemon.images[0].clone();
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    // As if the daemon had died and nobody came: the device stays, the files are closed.
    daemon.open.clear();
    let begun = Instant::now();
    let mut reader = t.block_reader(&at, 0, 4096)?;
    ends(&mut reader, begun, &[Errno::IO])?;
    // Its OPEN is as old, and has gone with it, or goes at once.
    daemon.restore()?;
    read_first_block(t, &mut daemon, &image, &at)
}

fn answered_in_time(t: &Context) -> Result<()> {
    let mut daemon = daemon(t, short(), &["plain"])?;
    let image = daemon.images[0].clone();
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    // One reader waits for a READ that is not answered; the others, begun meanwhile, are served
    // until after its deadline.
    drop_caches()?;
    let begun = Instant::now();
    let mut silent = t.block_reader(&at, 0, 4096)?;
    let held = daemon.expect_read()?;
    let mut block = 1;
    let end = Duration::from_secs(u64::from(short()) + 1);
    while begun.elapsed() < end {
        read_block(t, &mut daemon, &image, &at, block)?;
        block += 1;
        pace(end);
    }
    // The kernel asks again for a page whose readahead has failed, and that READ was answered.
    let data = daemon.serve(&mut silent)?.ok("the second try")?;
    same("block 0", &data, &t.images.contents(&image.name)?[..4096])?;
    let object = daemon.object(held.object_id)?;
    let late = errno_of(object.file.read_complete(held.msg_id))?;
    ensure!(late == Some(Errno::INVAL), "the late answer: {late:?}");
    Ok(())
}

fn newer_queued(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let mut daemon = daemon(t, short(), &["plain"])?;
    let image = daemon.images[0].clone();
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    // The work is queued for the first of these. The others let a second pass.
    let begun = Instant::now();
    let end = Duration::from_secs(1);
    let mut block = 0;
    while begun.elapsed() < end {
        read_block(t, &mut daemon, &image, &at, block)?;
        block += 1;
        pace(end);
    }
    let mut older = t.block_reader(&at, block * 4096, 4096)?;
    let read = daemon.expect_read()?;
    stops.stop("expiry")?;
    stops.wait_parked("expiry")?;
    // The work has begun, and finds nothing that is due; a newer request comes before it looks.
    let mut newer = t.block_reader(&at, (block + 1) * 4096, 4096)?;
    let newer_read = daemon.expect_read()?;
    stops.go("expiry")?;
    // The older READ ends first: the kernel asks for its page again, and the newer one is not due.
    let again = daemon.expect_read()?;
    ensure!(again.off == read.off, "{again:?} instead of {read:?} again");
    let object = daemon.object(newer_read.object_id)?;
    daemon.fill(&newer_read)?;
    object
        .file
        .read_complete(newer_read.msg_id)
        .context("the newer READ, when the older one had ended")?;
    daemon.answer_read(&again)?;
    for (reader, block) in [(&mut older, block), (&mut newer, block + 1)] {
        let data = daemon.serve(reader)?.ok("read")?;
        let wanted = &t.images.contents(&image.name)?[block * 4096..(block + 1) * 4096];
        same("a block", &data, wanted)?;
    }
    Ok(())
}

fn told(t: &Context) -> Result<()> {
    const TRACING: &str = "/sys/kernel/tracing";
    let mut daemon = daemon(t, short(), &["plain"])?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let event = Path::new(TRACING).join("events/ondemand/ondemand_expire/enable");
    let traced = event.exists();
    if traced {
        fs::write(Path::new(TRACING).join("trace"), "")?;
        fs::write(&event, "1")?;
    }
    drop_caches()?;
    let log = KernelLog::end()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    reader.wait(SOON)?.fails("read", &[Errno::IO])?;
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    daemon.expect_open()?;
    mount.wait(SOON)?.fails("mount", MOUNT_FAILS)?;
    let lines = log.lines();
    let (off, len) = (read.off.to_string(), format!("{} bytes", read.len));
    for parts in [
        ["erofs,plain/Dplain", off.as_str(), &len, "ETIMEDOUT"],
        ["erofs,small/Dsmall", "OPEN", "no answer", "ETIMEDOUT"],
    ] {
        let found = |text: &str| parts.iter().all(|part| text.contains(part));
        ensure!(
            lines.iter().any(|line| found(&line.text)),
            "no line with {parts:?} in {lines:?}"
        );
    }
    if traced {
        fs::write(&event, "0")?;
        let trace = fs::read_to_string(Path::new(TRACING).join("trace"))?;
        for wanted in [
            format!(
                "volume=erofs,plain cookie=Dplain msg_id={} opcode=READ off={off} len={} error=-110",
                read.msg_id, read.len
            ),
            "volume=erofs,small cookie=Dsmall".to_owned(),
        ] {
            ensure!(trace.contains(&wanted), "no {wanted} in\n{trace}");
        }
    }
    Ok(())
}

fn close_before_deadline(t: &Context) -> Result<()> {
    // The longest time: work that waited it out would still hold the daemon when the module goes.
    let mut daemon = daemon(t, cachefiles_proto::MAX_TIMEOUT, &["plain"])?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    daemon.expect_read()?;
    drop(daemon);
    reader.wait(SOON)?.fails("read", MOUNT_FAILS)
}

fn many_expire(t: &Context) -> Result<()> {
    // Longer than it takes to fetch so many OPENs on a slow machine, beside those that are served.
    let mut daemon = daemon(t, 7 * short(), &["small", "plain"])?;
    let image = daemon.images[1].clone();
    let served = t.mounted(&mut daemon, "domain_id=d,fsid=plain")?;
    let (mut many, opens) = many_openings(t, &mut daemon)?;
    // Another object opens, and one reopens.
    t.mounted(&mut daemon, "domain_id=d,fsid=small")?;
    daemon.open.clear();
    read_block(t, &mut daemon, &image, &served, 5)?;
    // mount-many says 0 if all of them have failed.
    many.wait(Duration::from_secs(60))?.ok("the many mounts")?;
    let late = daemon.copen(opens[0].msg_id, 16384);
    expect_errno("a late copen", late, &[Errno::INVAL])
}
