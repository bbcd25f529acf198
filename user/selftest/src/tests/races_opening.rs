// SPDX-License-Identifier: MIT OR Apache-2.0

//! Races of lookups and reopenings: fscache's workers and ours are on their way.

use anyhow::ensure;
use anyhow::Result;

use super::races::expect_held;
use super::races::mounted;
use super::races::reads;
use super::races::served;
use super::races::unmounts;
use crate::harness::drop_caches;
use crate::harness::eventually;
use crate::harness::same;
use crate::harness::store::read_once;
use crate::harness::Aside;
use crate::harness::Context;
use crate::harness::Stops;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "cve_2024_41051_stop_reopen_device_closed",
        "a withdrawal that waits for the work of a reopening, or work that uses what is freed",
        reopen_device_closed,
    ),
    Test::new(
        "stop_reopen_reader_killed",
        "an object that nobody opens any more if its reader goes before the OPEN is sent",
        reopen_reader_killed,
    ),
    Test::new(
        "d33_stop_reopen_umounted",
        "an OPEN that is sent for an object that is gone",
        reopen_umounted,
    ),
    Test::new(
        "cve_2024_41057_stop_lookup_device_closed",
        "a lookup that uses the cache after it was withdrawn",
        lookup_device_closed,
    ),
    Test::new(
        "cve_2024_41058_stop_volume_device_closed",
        "a volume that is attached to a cache after it was withdrawn",
        volume_device_closed,
    ),
    Test::new(
        "stop_volume_opened_second_mount",
        "two mounts of one volume at once, of which one fails",
        volume_second_mount,
    ),
];

fn reopen_device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images.push(t.images.get("plain")?);
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    daemon.open.clear();
    stops.stop("reopen-work")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    stops.wait_parked("reopen-work")?;
    let closing = Aside::start("close of the device", move || drop(daemon))?;
    closing.end()?;
    reader.wait(SOON)?.fails("read", MOUNT_FAILS)?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    // The work is still on its way, and another cache is served.
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images.push(t.images.get("plain")?);
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    reads(t, &mut daemon, &at)?;
    stops.go("reopen-work")?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    let data = read_once(t, &mut daemon, "fsid=plain")?;
    same("all", &data, &t.images.contents("plain")?)?;
    daemon.expect_nothing()
}

fn reopen_reader_killed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    daemon.open.clear();
    stops.stop("reopen-work")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    stops.wait_parked("reopen-work")?;
    reader.kill()?;
    reader.wait(SOON)?;
    // The next one waits for the same OPEN.
    let mut reader = t.block_reader(&at, 0, 4096)?;
    eventually("the reader waits", SOON, || Ok(reader.blocked()))?;
    stops.go("reopen-work")?;
    served(t, &mut daemon, &mut reader)?;
    reads(t, &mut daemon, &at)
}

fn reopen_umounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (mut daemon, _, at) = mounted(t)?;
    daemon.open.clear();
    stops.stop("reopen-work")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    stops.wait_parked("reopen-work")?;
    reader.kill()?;
    reader.wait(SOON)?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let opens = daemon.opens();
    stops.go("reopen-work")?;
    reads(t, &mut daemon, &at)?;
    daemon.expect_nothing()?;
    ensure!(daemon.opens() == opens, "an OPEN for what was unmounted");
    Ok(())
}

/// The device is closed while a mount's lookup stops at `place`, and the lookup goes on when the
/// closing has come to each of its places.
fn closed_below(t: &Context, place: &str) -> Result<()> {
    let stops = Stops::open()?;
    for lookup_first in [true, false] {
        let daemon = t.daemon(&["plain"])?;
        let at = t.mount_point()?;
        stops.stop(place)?;
        let mut mount = t.mount("fsid=plain", &at)?;
        stops.wait_parked(place)?;
        stops.stop("device-closed")?;
        let closing = Aside::start("close of the device", move || drop(daemon))?;
        stops.wait_parked("device-closed")?;
        let order = if lookup_first {
            [place, "device-closed"]
        } else {
            ["device-closed", place]
        };
        stops.go(order[0])?;
        if !lookup_first {
            // The withdrawal waits for the lookup.
            closing.expect_running()?;
            expect_held(t)?;
        }
        stops.go(order[1])?;
        closing.end()?;
        mount.wait(SOON)?.fails("mount", MOUNT_FAILS)?;
    }
    let mut daemon = t.daemon(&["plain"])?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    reads(t, &mut daemon, &at)?;
    unmounts(t, &mut daemon, &at)
}

fn lookup_device_closed(t: &Context) -> Result<()> {
    closed_below(t, "lookup-found")?;
    closed_below(t, "lookup-admitted")
}

fn volume_device_closed(t: &Context) -> Result<()> {
    closed_below(t, "volume-opened")
}

fn volume_second_mount(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let mut daemon = t.daemon(&["plain", "twin"])?;
    let (at, other) = (t.mount_point()?, t.mount_point()?);
    stops.stop("volume-opened")?;
    let mut mount = t.mount("domain_id=d,fsid=plain", &at)?;
    stops.wait_parked("volume-opened")?;
    let mut second = t.mount("domain_id=d,fsid=twin", &other)?;
    eventually("the second mount waits", SOON, || {
        Ok(second.blocked_in(libc::SYS_mount))
    })?;
    stops.go("volume-opened")?;
    daemon.serve(&mut mount)?.ok("mount")?;
    daemon.serve(&mut second)?.ok("the second mount")?;
    reads(t, &mut daemon, &at)?;
    let mut reader = t.reader(&other, 0, 1 << 20)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the second image", &data, &t.images.contents("twin")?)
}
