// SPDX-License-Identifier: MIT OR Apache-2.0

//! Races of an answer, of a write to an anonymous file, and of its close.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::AnonymousFile;
use rustix::fd::AsFd as _;
use rustix::io::Errno;

use super::races::expect_held;
use super::races::mounted;
use super::races::reads;
use super::races::served;
use super::races::unmounts;
use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::stops::second;
use crate::harness::Aside;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Image;
use crate::harness::Stops;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "stop_copen_fd_closed",
        "an object that is open without a file, or a mount that waits for one",
        copen_fd_closed,
    ),
    Test::new(
        "stop_copen_reopening_fd_closed",
        "READs that are lost if the file is closed while the reopen is answered",
        copen_reopening_fd_closed,
    ),
    Test::new(
        "stop_copen_umounted",
        "an answer that revives an object, holds up the next mount, or uses what is freed",
        copen_umounted,
    ),
    Test::new(
        "stop_copen_answered_again",
        "an OPEN that is answered twice, or restored while it is answered",
        copen_again,
    ),
    Test::new(
        "stop_copen_device_closed",
        "a cache that ends below an answer",
        copen_device_closed,
    ),
    Test::new(
        "stop_fd_released_read",
        "a READ that is lost because it came while its file was closed",
        released_read,
    ),
    Test::new(
        "stop_fd_released_umounted",
        "a CLOSE for a file that is closed",
        released_umounted,
    ),
    Test::new(
        "stop_fd_released_device_closed",
        "a cache that ends before its last file has",
        released_device_closed,
    ),
    Test::new(
        "stop_fd_released_reopen_answered",
        "an object that stays open if its reopen is answered while the file is closed",
        released_answered,
    ),
    Test::new(
        "stop_fill_umounted",
        "a write to an object that is gone meanwhile",
        fill_umounted,
    ),
    Test::new(
        "cve_2024_56549_stop_fill_device_closed",
        "a write to an object whose cache ends meanwhile",
        fill_device_closed,
    ),
];

/// Where an answer stops: before and after the file is checked.
const ANSWERING: [&str; 2] = ["copen-answered", "copen-validated"];

type Answer = Aside<Result<(), Errno>>;

/// Answers an OPEN from another thread, which stops at `place`.
fn answer_to(
    stops: &Stops,
    daemon: &Daemon,
    msg_id: u32,
    size: u64,
    place: &str,
) -> Result<Answer> {
    stops.stop(place)?;
    let device = second(daemon)?;
    let text = format!("copen {msg_id},{size}");
    let answer = Aside::start("copen", move || {
        device.write_bytes(text.as_bytes()).map(drop)
    })?;
    stops.wait_parked(place)?;
    Ok(answer)
}

/// A mount of `plain` whose OPEN is being answered.
struct Answering {
    daemon: Daemon,
    image: Arc<Image>,
    mount: Task,
    at: PathBuf,
    msg_id: u32,
    answer: Answer,
}

fn answering(t: &Context, stops: &Stops, place: &str) -> Result<Answering> {
    let mut daemon = t.daemon(&["plain"])?;
    let image = daemon.images[0].clone();
    let at = t.mount_point()?;
    let mount = t.mount("fsid=plain", &at)?;
    let open = daemon.expect_open()?;
    let msg_id = open.msg_id;
    daemon.keep(open, &image);
    let answer = answer_to(stops, &daemon, msg_id, image.size, place)?;
    Ok(Answering {
        daemon,
        image,
        mount,
        at,
        msg_id,
        answer,
    })
}

fn copen_fd_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    for place in ANSWERING {
        let mut a = answering(t, &stops, place)?;
        a.daemon.open.clear();
        stops.go(place)?;
        a.answer.end()?.context("copen")?;
        a.daemon.serve(&mut a.mount)?.ok("mount")?;
        let opens = a.daemon.opens();
        ensure!(opens == 2, "{place}: {opens} OPENs, should have been 2");
        reads(t, &mut a.daemon, &a.at)?;
        unmounts(t, &mut a.daemon, &a.at)?;
    }
    Ok(())
}

fn copen_reopening_fd_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    for place in ANSWERING {
        let (mut daemon, image, at) = mounted(t)?;
        let mut reader = t.block_reader(&at, 0, 4096)?;
        daemon.expect_read()?;
        daemon.open.clear();
        let open = daemon.expect_open()?;
        let msg_id = open.msg_id;
        daemon.keep(open, &image);
        let answer = answer_to(&stops, &daemon, msg_id, image.size, place)?;
        daemon.open.clear();
        stops.go(place)?;
        answer.end()?.context("copen")?;
        served(t, &mut daemon, &mut reader)?;
        reads(t, &mut daemon, &at)?;
        unmounts(t, &mut daemon, &at)?;
    }
    Ok(())
}

fn copen_umounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    for place in ANSWERING {
        let mut a = answering(t, &stops, place)?;
        a.mount.kill()?;
        let close = a.daemon.expect_close()?;
        a.daemon.open.remove(&close.object_id);
        a.mount.wait(SOON)?;
        // The next mount of the same image waits for nobody's answer but its own.
        let at = t.mounted(&mut a.daemon, "fsid=plain")?;
        stops.go(place)?;
        let result = a.answer.end()?;
        if place == "copen-answered" {
            // Its file is gone before it was looked at.
            expect_errno("copen of what is unmounted", result, &[Errno::IO])?;
        } else {
            result.context("copen")?;
        }
        a.daemon.expect_nothing()?;
        reads(t, &mut a.daemon, &at)?;
        unmounts(t, &mut a.daemon, &at)?;
    }
    Ok(())
}

fn copen_again(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    for place in ANSWERING {
        let mut a = answering(t, &stops, place)?;
        let again = a.daemon.copen(a.msg_id, a.image.size);
        expect_errno("a second copen", again, &[Errno::INVAL])?;
        let again = a.daemon.copen_error(a.msg_id, Errno::NOENT);
        expect_errno("a copen with an error", again, &[Errno::INVAL])?;
        a.daemon.restore()?;
        a.daemon.expect_nothing()?;
        stops.go(place)?;
        a.answer.end()?.context("copen")?;
        a.daemon.serve(&mut a.mount)?.ok("mount")?;
        let opens = a.daemon.opens();
        ensure!(opens == 1, "{place}: {opens} OPENs, should have been 1");
        reads(t, &mut a.daemon, &a.at)?;
        unmounts(t, &mut a.daemon, &a.at)?;
    }
    Ok(())
}

fn copen_device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    for place in ANSWERING {
        let mut a = answering(t, &stops, place)?;
        drop(a.daemon);
        // The call holds the device.
        expect_held(t)?;
        stops.go(place)?;
        a.answer.end()?.context("copen")?;
        a.mount.wait(SOON)?.fails("mount", MOUNT_FAILS)?;
        eventually("the device is free", SOON, || {
            Ok(errno_of(t.device())?.is_none())
        })?;
    }
    Ok(())
}

/// Closes an anonymous file from another thread, which stops before the table is told.
fn close_to(stops: &Stops, file: AnonymousFile) -> Result<Aside<()>> {
    stops.stop("fd-released")?;
    let close = Aside::start("close of an anonymous file", move || drop(file))?;
    stops.wait_parked("fd-released")?;
    Ok(close)
}

fn only_file(daemon: &mut Daemon) -> Result<(u32, AnonymousFile)> {
    let (object_id, opened) = daemon.open.pop_first().context("nothing is open")?;
    Ok((object_id, opened.file))
}

fn released_read(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    let (object_id, file) = only_file(&mut daemon)?;
    let close = close_to(&stops, file)?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    ensure!(read.object_id == object_id, "{read:?} for {object_id}");
    stops.go("fd-released")?;
    close.end()?;
    let open = daemon.expect_open()?;
    let image = daemon.images[0].clone();
    let object_id = daemon.accept(open, &image)?;
    let read = daemon.expect_read()?;
    ensure!(read.object_id == object_id, "{read:?} for {object_id}");
    daemon.answer_read(&read)?;
    served(t, &mut daemon, &mut reader)?;
    reads(t, &mut daemon, &at)
}

fn released_umounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    let (_, file) = only_file(&mut daemon)?;
    let close = close_to(&stops, file)?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    eventually("a CLOSE", SOON, || daemon.has_message())?;
    stops.go("fd-released")?;
    close.end()?;
    daemon.expect_nothing()?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    reads(t, &mut daemon, &at)
}

fn released_device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    let (_, file) = only_file(&mut daemon)?;
    let close = close_to(&stops, file)?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    daemon.expect_read()?;
    drop(daemon);
    reader.wait(SOON)?.fails("read", MOUNT_FAILS)?;
    expect_held(t)?;
    stops.go("fd-released")?;
    close.end()?;
    eventually("the device is free", SOON, || {
        Ok(errno_of(t.device())?.is_none())
    })
}

fn released_answered(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, image, at) = mounted(t)?;
    daemon.open.clear();
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let open = daemon.expect_open()?;
    let (msg_id, object_id) = (open.msg_id, open.object_id);
    let close = close_to(&stops, open.file)?;
    daemon.copen(msg_id, image.size).context("copen")?;
    let read = daemon.expect_read()?;
    ensure!(read.object_id == object_id, "{read:?} for {object_id}");
    stops.go("fd-released")?;
    close.end()?;
    served(t, &mut daemon, &mut reader)?;
    let opens = daemon.opens();
    ensure!(opens == 3, "{opens} OPENs, should have been 3");
    reads(t, &mut daemon, &at)
}

/// Writes all of the image from another thread, which stops with nothing written.
fn fill_to(
    stops: &Stops,
    daemon: &Daemon,
    image: &Arc<Image>,
) -> Result<Aside<cachefiles_proto::Result<()>>> {
    let opened = daemon.open.values().next().context("nothing is open")?;
    let file = AnonymousFile::from(opened.file.as_fd().try_clone_to_owned()?);
    let image = image.clone();
    stops.stop("fill-begun")?;
    let fill = Aside::start("write", move || file.write_all_at(image.bytes(), 0))?;
    stops.wait_parked("fill-begun")?;
    Ok(fill)
}

fn fill_umounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, image, at) = mounted(t)?;
    let fill = fill_to(&stops, &daemon, &image)?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    stops.go("fill-begun")?;
    let result = errno_of(fill.end()?)?;
    ensure!(
        matches!(result, None | Some(Errno::NOBUFS)),
        "write: {result:?}"
    );
    reads(t, &mut daemon, &at)
}

fn fill_device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let image = t.images.get("plain")?;
    daemon.images.push(image.clone());
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let fill = fill_to(&stops, &daemon, &image)?;
    drop(daemon);
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    // The file that is written to holds the cache.
    expect_held(t)?;
    stops.go("fill-begun")?;
    let result = errno_of(fill.end()?)?;
    ensure!(
        matches!(result, None | Some(Errno::NOBUFS)),
        "write: {result:?}"
    );
    eventually("the device is free", SOON, || {
        Ok(errno_of(t.device())?.is_none())
    })?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images.push(image);
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    reads(t, &mut daemon, &at)
}
