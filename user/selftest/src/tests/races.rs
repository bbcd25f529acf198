// SPDX-License-Identifier: MIT OR Apache-2.0

//! Races of a delivery: a thread is in `read` of the device, and something happens meanwhile.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Message;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::expect_errno;
use crate::harness::raw;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Fetch;
use crate::harness::Image;
use crate::harness::Stops;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d32_stop_read_in_delivery_closed",
        "a READ that is shown under an object_id whose file is closed, or lost",
        read_closed,
    ),
    Test::new(
        "cve_2024_39510_stop_close_in_delivery",
        "a CLOSE that is used after the close of its file has ended it",
        close_closed,
    ),
    Test::new(
        "stop_deliver_selected_reader_killed",
        "a READ that is used after its reader has gone, or a reader that waits for the delivery",
        reader_killed,
    ),
    Test::new(
        "stop_deliver_selected_device_closed",
        "a cache that ends below a thread in read, or never",
        device_closed,
    ),
    Test::new(
        "cve_2024_40913_stop_open_copied",
        "an OPEN that can be closed, answered or restored (CVE-2024-40899) before it is delivered",
        open_copied,
    ),
    Test::new(
        "stop_deliver_told_answered",
        "an answer between the table's yes and the fd that breaks the opening",
        open_told,
    ),
    Test::new(
        "d33_stop_open_in_delivery_umounted",
        "an OPEN that is shown for an object that is gone, or an fd that is leaked",
        open_umounted,
    ),
    Test::new(
        "d33_stop_open_told_umounted",
        "an fd that nobody is asked to close",
        told_umounted,
    ),
    Test::new(
        "d17_stop_open_in_delivery_expired",
        "an OPEN that is shown after its deadline, or its fd that is leaked",
        open_expired,
    ),
];

/// Where a delivery stops before the table has agreed.
const IN_DELIVERY: [&str; 2] = ["deliver-selected", "deliver-copied"];

/// How many seconds requests have where they are to expire. The rest must be served in that time, so it
/// is longer on a slow machine: what is tested is that the module keeps the time it was given. At most
/// 10 s, for eight tests wait until it is over, one of them for seven times as long.
pub(super) fn short() -> u32 {
    const SHORT: u32 = 3;
    (SHORT * ondemand_deadline::percent()).div_ceil(100).min(10)
}

/// Mounts `plain`; the next read goes to the cache.
pub(super) fn mounted(t: &Context) -> Result<(Daemon, Arc<Image>, PathBuf)> {
    let mounted = t.mounted_image("plain")?;
    drop_caches()?;
    Ok(mounted)
}

/// A daemon for `plain` whose requests have [`short`] seconds.
pub(super) fn hasty(t: &Context) -> Result<(Daemon, Arc<Image>)> {
    let device = t.device()?;
    device.send(&Command::Dir(t.new_dir()?))?;
    device.send(&Command::Timeout(short()))?;
    device.send(&Command::BindOnDemand)?;
    let mut daemon = Daemon::from_device(device);
    let image = t.images.get("plain")?;
    daemon.images.push(image.clone());
    Ok((daemon, image))
}

/// Serves a reader of the first block of `plain`, and looks at what it got.
pub(super) fn served(t: &Context, daemon: &mut Daemon, reader: &mut Task) -> Result<()> {
    let data = daemon.serve(reader)?.ok("read")?;
    same("block 0", &data, &t.images.contents("plain")?[..4096])
}

/// All that `plain` holds can be read as if nothing had been.
pub(super) fn reads(t: &Context, daemon: &mut Daemon, at: &Path) -> Result<()> {
    drop_caches()?;
    let mut reader = t.reader(at, 0, 1 << 20)?;
    let data = daemon.serve(&mut reader)?.ok("read of all")?;
    same("all", &data, &t.images.contents("plain")?)
}

/// Unmounts: another daemon may not serve an image while it is mounted.
pub(super) fn unmounts(t: &Context, daemon: &mut Daemon, at: &Path) -> Result<()> {
    let mut umount = t.unmount(at)?;
    daemon.serve(&mut umount)?.ok("umount").map(drop)
}

/// The descriptors of this process.
fn descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// The device is held by somebody.
pub(super) fn expect_held(t: &Context) -> Result<()> {
    let opened = errno_of(t.device())?;
    ensure!(
        opened == Some(Errno::BUSY),
        "open of the device: {opened:?}"
    );
    Ok(())
}

/// Has another thread fetch the next message, which stops at `place`.
fn fetch_to(stops: &Stops, daemon: &Daemon, place: &str) -> Result<Fetch> {
    stops.stop(place)?;
    let fetch = Fetch::start(daemon)?;
    stops.wait_parked(place)?;
    Ok(fetch)
}

fn read_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    for place in IN_DELIVERY {
        let (mut daemon, image, at) = mounted(t)?;
        let mut reader = t.block_reader(&at, 0, 4096)?;
        let fetch = fetch_to(&stops, &daemon, place)?;
        daemon.open.clear();
        stops.go(place)?;
        let open = match fetch.end()? {
            Some(Message::Open(open)) => open,
            None => daemon.expect_open()?,
            Some(other) => bail!("{place}: shown although its file is closed: {other:?}"),
        };
        let object_id = daemon.accept(open, &image)?;
        let read = daemon.expect_read()?;
        ensure!(read.object_id == object_id, "{read:?} for {object_id}");
        daemon.answer_read(&read)?;
        served(t, &mut daemon, &mut reader)?;
        reads(t, &mut daemon, &at)?;
        unmounts(t, &mut daemon, &at)?;
    }
    Ok(())
}

fn close_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, mut at) = mounted(t)?;
    for place in IN_DELIVERY {
        t.unmount(&at)?.wait(SOON)?.ok("umount")?;
        let fetch = fetch_to(&stops, &daemon, place)?;
        daemon.restore()?;
        daemon.open.clear();
        stops.go(place)?;
        let shown = fetch.end()?;
        ensure!(shown.is_none(), "{place}: {shown:?} for a closed file");
        daemon.expect_nothing()?;
        at = t.mounted(&mut daemon, "fsid=plain")?;
    }
    reads(t, &mut daemon, &at)
}

fn reader_killed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    for place in IN_DELIVERY {
        let mut reader = t.block_reader(&at, 0, 4096)?;
        let fetch = fetch_to(&stops, &daemon, place)?;
        reader.kill()?;
        reader.wait(SOON)?;
        stops.go(place)?;
        let shown = fetch.end()?;
        ensure!(shown.is_none(), "{place}: {shown:?} for nobody");
        daemon.expect_nothing()?;
    }
    reads(t, &mut daemon, &at)
}

fn device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (daemon, _, at) = mounted(t)?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let fetch = fetch_to(&stops, &daemon, "deliver-selected")?;
    drop(daemon);
    // The call holds the device, and with it the cache.
    expect_held(t)?;
    ensure!(reader.running()?, "the reader has ended");
    stops.go("deliver-selected")?;
    match fetch.end()? {
        None | Some(Message::Open(_)) => {}
        Some(other) => bail!("shown although its file is closed: {other:?}"),
    }
    reader.wait(SOON)?.fails("read", MOUNT_FAILS)
}

fn open_copied(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let mut daemon = t.daemon(&["plain"])?;
    let image = daemon.images[0].clone();
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    let fetch = fetch_to(&stops, &daemon, "deliver-copied")?;
    let (msg_id, fd) = fetch.copied()?;
    let fd = fd.context("this is no OPEN")?;
    expect_errno("close", raw::close_number(fd), &[Errno::BADF])?;
    let early = daemon.copen(msg_id, image.size);
    expect_errno("copen before the delivery", early, &[Errno::INVAL])?;
    daemon.restore()?;
    daemon.expect_nothing()?;
    stops.go("deliver-copied")?;
    let Some(Message::Open(open)) = fetch.end()? else {
        bail!("the OPEN was not delivered");
    };
    ensure!(open.msg_id == msg_id, "another OPEN: {open:?}");
    // `restore` was written before the file closes: the OPEN comes again.
    drop(open);
    let open = daemon.expect_open()?;
    daemon.accept(open, &image)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    reads(t, &mut daemon, &at)
}

fn open_told(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let mut daemon = t.daemon(&["plain"])?;
    let image = daemon.images[0].clone();
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    let fetch = fetch_to(&stops, &daemon, "deliver-told")?;
    let (msg_id, fd) = fetch.copied()?;
    let fd = fd.context("this is no OPEN")?;
    expect_errno("close", raw::close_number(fd), &[Errno::BADF])?;
    daemon.restore()?;
    daemon.expect_nothing()?;
    // From here on the OPEN counts as delivered: whoever looks at the other thread's memory may answer.
    daemon.copen(msg_id, image.size).context("copen")?;
    let read = daemon.expect_read()?;
    stops.go("deliver-told")?;
    let Some(Message::Open(open)) = fetch.end()? else {
        bail!("the OPEN was not delivered");
    };
    ensure!(open.object_id == read.object_id, "{read:?} of {open:?}");
    daemon.keep(open, &image);
    daemon.answer_read(&read)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    reads(t, &mut daemon, &at)
}

fn open_umounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let mut daemon = t.daemon(&["plain"])?;
    for place in IN_DELIVERY {
        let mut mount = t.mount("fsid=plain", &t.mount_point()?)?;
        let before = descriptors()?;
        let fetch = fetch_to(&stops, &daemon, place)?;
        stops.stop("finish-dropped")?;
        mount.kill()?;
        // The table knows now that the object is gone.
        stops.wait_parked("finish-dropped")?;
        stops.go(place)?;
        let shown = fetch.end()?;
        ensure!(shown.is_none(), "{place}: {shown:?} for no object");
        let after = descriptors()?;
        ensure!(after == before, "{before} descriptors, {after} afterwards");
        stops.go("finish-dropped")?;
        mount.wait(SOON)?;
        daemon.expect_nothing()?;
    }
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    reads(t, &mut daemon, &at)
}

fn told_umounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let mut daemon = t.daemon(&["plain"])?;
    let mut mount = t.mount("fsid=plain", &t.mount_point()?)?;
    let fetch = fetch_to(&stops, &daemon, "deliver-told")?;
    mount.kill()?;
    let close = daemon.expect_close()?;
    stops.go("deliver-told")?;
    let Some(Message::Open(open)) = fetch.end()? else {
        bail!("the OPEN was not delivered");
    };
    ensure!(
        open.object_id == close.object_id,
        "{close:?} is not for {open:?}"
    );
    let late = daemon.copen(open.msg_id, 4096);
    expect_errno("copen after the CLOSE", late, &[Errno::INVAL])?;
    drop(open);
    mount.wait(SOON)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    reads(t, &mut daemon, &at)
}

fn open_expired(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _) = hasty(t)?;
    let mut mount = t.mount("fsid=plain", &t.mount_point()?)?;
    let before = descriptors()?;
    let fetch = fetch_to(&stops, &daemon, "deliver-copied")?;
    mount.wait(SOON)?.fails("mount", MOUNT_FAILS)?;
    stops.go("deliver-copied")?;
    let shown = fetch.end()?;
    ensure!(shown.is_none(), "{shown:?} after its deadline");
    let after = descriptors()?;
    ensure!(after == before, "{before} descriptors, {after} afterwards");
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    reads(t, &mut daemon, &at)
}
