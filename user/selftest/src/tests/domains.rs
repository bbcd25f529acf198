// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of several devices, and domains that share what they hold.

use anyhow::ensure;
use anyhow::Result;
use cachefiles_proto::Message;
use rustix::io::Errno;

use crate::harness::image::BLOB;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Event;
use crate::harness::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "domain_volume_key",
        "a domain that is not the volume",
        volume_key,
    ),
    Test::new(
        "domain_two_images",
        "two images of a domain that get in each other's way",
        two_images,
    ),
    Test::new(
        "devices_blob",
        "an image whose data lies in a blob of its own",
        blob,
    ),
    Test::new(
        "devices_unknown_blob",
        "a missing blob that hangs the mount or its readers",
        unknown_blob,
    ),
];

fn volume_key(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let at = t.mount_point()?;
    let mut mount = t.mount("domain_id=some.domain,fsid=small", &at)?;
    let mut seen = Vec::new();
    let outcome = daemon.serve_with(&mut mount, |daemon, message| {
        if let Message::Open(open) = &message {
            seen.push((open.volume_key.clone(), open.cookie_key.clone()));
        }
        daemon.answer(message)
    })?;
    outcome.ok("mount")?;
    let expected = [(b"erofs,some.domain".to_vec(), b"small".to_vec())];
    ensure!(seen == expected, "{seen:?}");
    Ok(())
}

fn two_images(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["plain", "twin"])?;
    let mut mounts = Vec::new();
    for name in ["plain", "twin"] {
        mounts.push((
            name,
            t.mounted(&mut daemon, &format!("domain_id=d,fsid={name}"))?,
        ));
    }
    for (name, at) in &mounts {
        let expected = t.images.contents(name)?;
        let mut reader = t.reader(at, 0, expected.len())?;
        let data = daemon.serve(&mut reader)?.ok("read")?;
        same(name, &data, &expected)?;
    }
    for (_, at) in &mounts {
        let mut umount = t.unmount(at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
    }
    Ok(())
}

fn blob(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["chunked", BLOB])?;
    let options = format!("domain_id=d,fsid=chunked,device={BLOB}");
    let at = t.mounted(&mut daemon, &options)?;
    let expected = t.images.contents("chunked")?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected)?;
    let opened: Vec<&[u8]> = daemon
        .log
        .iter()
        .filter_map(|event| match event {
            Event::Open(_, _, key) => Some(&key[..]),
            _ => None,
        })
        .collect();
    ensure!(
        opened == [&b"chunked"[..], BLOB.as_bytes()],
        "OPENs: {opened:?}"
    );
    Ok(())
}

fn unknown_blob(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["chunked"])?;
    let at = t.mount_point()?;
    let options = format!("domain_id=d,fsid=chunked,device={BLOB}");
    let mut mount = t.mount(&options, &at)?;
    // Whether the mount already fails is EROFS' affair.
    if daemon.serve(&mut mount)?.ok("mount").is_ok() {
        let mut reader = t.reader(&at, 0, 4096)?;
        let errors = [Errno::IO, Errno::NOBUFS];
        daemon.serve(&mut reader)?.fails("read", &errors)?;
    }
    Ok(())
}
