// SPDX-License-Identifier: MIT OR Apache-2.0

//! Races of a reader, and of the deadline: what it waits for ends before it waits.

use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;

use super::races::hasty;
use super::races::mounted;
use super::races::reads;
use super::races::served;
use super::races::short;
use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::same;
use crate::harness::Aside;
use crate::harness::Context;
use crate::harness::Outcome;
use crate::harness::Stops;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "stop_hole_found_fd_closed",
        "a READ that is lost if the file is closed just before it comes",
        hole_fd_closed,
    ),
    Test::new(
        "stop_hole_found_filled",
        "a hole that is asked for in vain, or read as zeros, if it is filled meanwhile",
        hole_filled,
    ),
    Test::new(
        "stop_reading_device_closed",
        "zeros, or a hang, for a reader whose cache ends between its steps",
        device_closed,
    ),
    Test::new(
        "stop_read_queued_answered",
        "a wake-up that is lost because the reader does not wait yet",
        queued_answered,
    ),
    Test::new(
        "d05_stop_read_queued_fd_closed",
        "a READ that is lost if its file is closed before its reader waits",
        queued_fd_closed,
    ),
    Test::new(
        "d34_stop_read_queued_reader_killed",
        "a READ that outlives its reader",
        queued_reader_killed,
    ),
    Test::new(
        "d17_stop_read_queued_expired",
        "a READ whose end is lost because its reader does not wait yet",
        queued_expired,
    ),
    Test::new(
        "stop_read_ended_fd_closed",
        "stored data that is asked for again, or zeros, if the file is closed meanwhile",
        ended_fd_closed,
    ),
    Test::new(
        "stop_read_ended_filled_late",
        "a reader that believes the answer instead of the file",
        ended_filled_late,
    ),
    Test::new(
        "d17_stop_expiry_answered",
        "a deadline that takes what was answered before it was looked for",
        expiry_answered,
    ),
    Test::new(
        "d17_stop_expiry_device_closed",
        "a device that waits for the deadline's work, or work that uses what is freed",
        expiry_device_closed,
    ),
    Test::new(
        "d17_stop_expiry_umounted",
        "a deadline that ends the OPEN of an object that is gone",
        expiry_umounted,
    ),
];

fn hole_fd_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    stops.stop("hole-found")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    stops.wait_parked("hole-found")?;
    daemon.open.clear();
    stops.go("hole-found")?;
    served(t, &mut daemon, &mut reader)?;
    ensure!(daemon.opens() == 2, "the object was not opened again");
    reads(t, &mut daemon, &at)
}

fn hole_filled(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, image, at) = mounted(t)?;
    stops.stop("hole-found")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    stops.wait_parked("hole-found")?;
    let opened = daemon.open.values().next().context("nothing is open")?;
    opened.file.write_all_at(image.bytes(), 0)?;
    stops.go("hole-found")?;
    let read = daemon.expect_read()?;
    // All that it asks for is there.
    let file = &daemon.object(read.object_id)?.file;
    file.read_complete(read.msg_id)?;
    served(t, &mut daemon, &mut reader)?;
    let before = daemon.reads().len();
    reads(t, &mut daemon, &at)?;
    ensure!(
        daemon.reads().len() == before,
        "what was filled is asked for"
    );
    Ok(())
}

fn device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    for place in ["hole-found", "read-queued", "read-ended"] {
        for closed in ["device-closed", "withdraw-begun"] {
            let (mut daemon, _, at) = mounted(t)?;
            stops.stop(place)?;
            let mut reader = t.block_reader(&at, 0, 4096)?;
            if place == "read-ended" {
                let read = daemon.expect_read()?;
                daemon.answer_read(&read)?;
            }
            stops.wait_parked(place)?;
            stops.stop(closed)?;
            let closing = Aside::start("close of the device", move || drop(daemon))?;
            stops.wait_parked(closed)?;
            stops.go(place)?;
            let outcome = reader.wait(SOON)?;
            let what = format!("read from {place} on, with {closed}");
            if let Outcome::Done(data) = outcome {
                // The answer had come before the end.
                ensure!(place == "read-ended", "{what} succeeded");
                same(&what, &data, &t.images.contents("plain")?[..4096])?;
            } else {
                outcome.fails(&what, MOUNT_FAILS)?;
            }
            stops.go(closed)?;
            closing.end()?;
            t.unmount(&at)?.wait(SOON)?.ok("umount")?;
        }
    }
    Ok(())
}

fn queued_answered(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    stops.stop("read-queued")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    stops.wait_parked("read-queued")?;
    let read = daemon.expect_read()?;
    daemon.fill(&read)?;
    let file = &daemon.object(read.object_id)?.file;
    file.read_complete(read.msg_id)?;
    stops.go("read-queued")?;
    served(t, &mut daemon, &mut reader)?;
    reads(t, &mut daemon, &at)
}

fn queued_fd_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    stops.stop("read-queued")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    stops.wait_parked("read-queued")?;
    daemon.expect_read()?;
    daemon.open.clear();
    // The OPEN does not wait for the reader.
    let open = daemon.expect_open()?;
    stops.go("read-queued")?;
    let image = daemon.images[0].clone();
    daemon.accept(open, &image)?;
    served(t, &mut daemon, &mut reader)?;
    reads(t, &mut daemon, &at)
}

fn queued_reader_killed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    stops.stop("read-queued")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    stops.wait_parked("read-queued")?;
    let read = daemon.expect_read()?;
    reader.kill()?;
    stops.go("read-queued")?;
    reader.wait(SOON)?;
    let late = errno_of(
        daemon
            .object(read.object_id)?
            .file
            .read_complete(read.msg_id),
    )?;
    ensure!(late == Some(Errno::INVAL), "the late answer: {late:?}");
    daemon.expect_nothing()?;
    reads(t, &mut daemon, &at)
}

fn queued_expired(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _) = hasty(t)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    stops.stop("read-queued")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    stops.wait_parked("read-queued")?;
    eventually("a READ", SOON, || daemon.has_message())?;
    eventually("the READ ends", SOON, || Ok(!daemon.has_message()?))?;
    stops.go("read-queued")?;
    // The kernel reads a page again whose readahead has failed: that READ is answered.
    served(t, &mut daemon, &mut reader)?;
    reads(t, &mut daemon, &at)
}

fn ended_fd_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    stops.stop("read-ended")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    daemon.answer_read(&read)?;
    stops.wait_parked("read-ended")?;
    daemon.open.clear();
    stops.go("read-ended")?;
    served(t, &mut daemon, &mut reader)?;
    reads(t, &mut daemon, &at)?;
    let again = daemon.reads();
    let times = again.iter().filter(|it| **it == (read.off, read.len));
    ensure!(times.count() == 1, "asked for again: {again:?}");
    Ok(())
}

fn ended_filled_late(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, image, at) = mounted(t)?;
    stops.stop("read-ended")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    let file = &daemon.object(read.object_id)?.file;
    file.read_complete(read.msg_id)?;
    stops.wait_parked("read-ended")?;
    file.write_all_at(image.bytes(), 0)?;
    stops.go("read-ended")?;
    let data = reader.wait(SOON)?.ok("read")?;
    same("block 0", &data, &t.images.contents("plain")?[..4096])?;
    daemon.expect_nothing()?;
    reads(t, &mut daemon, &at)
}

fn expiry_answered(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _) = hasty(t)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    let asked_for = Instant::now();
    // The work may have been queued for what the mount has asked: it is held until the READ is due.
    stops.stop("expiry")?;
    stops.wait_parked("expiry")?;
    eventually("the READ is due", SOON, || {
        Ok(asked_for.elapsed() > Duration::from_secs(u64::from(short())))
    })?;
    daemon.fill(&read)?;
    let file = &daemon.object(read.object_id)?.file;
    file.read_complete(read.msg_id).context("the answer")?;
    stops.go("expiry")?;
    served(t, &mut daemon, &mut reader)?;
    let asked = daemon.reads();
    let times = asked.iter().filter(|it| **it == (read.off, read.len));
    ensure!(times.count() == 1, "asked for again: {asked:?}");
    reads(t, &mut daemon, &at)
}

fn expiry_device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _) = hasty(t)?;
    stops.stop("expiry")?;
    let mut mount = t.mount("fsid=plain", &t.mount_point()?)?;
    daemon.expect_open()?;
    stops.wait_parked("expiry")?;
    let closing = Aside::start("close of the device", move || drop(daemon))?;
    closing.end()?;
    mount.wait(SOON)?.fails("mount", MOUNT_FAILS)?;
    let mut daemon = t.daemon(&["plain"])?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    stops.go("expiry")?;
    reads(t, &mut daemon, &at)
}

fn expiry_umounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _) = hasty(t)?;
    stops.stop("expiry")?;
    let mut mount = t.mount("fsid=plain", &t.mount_point()?)?;
    let open = daemon.expect_open()?;
    stops.wait_parked("expiry")?;
    mount.kill()?;
    let close = daemon.expect_close()?;
    ensure!(close.object_id == open.object_id, "{close:?} for {open:?}");
    drop(open);
    mount.wait(SOON)?;
    stops.go("expiry")?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    reads(t, &mut daemon, &at)?;
    daemon.expect_nothing()
}
