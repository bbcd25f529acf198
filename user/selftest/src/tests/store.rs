// SPDX-License-Identifier: MIT OR Apache-2.0

//! The store on disk: names, and the files behind them.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use ondemand_core::key;
use ondemand_core::layout;
use rustix::io::Errno;

use crate::harness::errno_of;
use crate::harness::same;
use crate::harness::store::eventually_exists;
use crate::harness::store::object_file;
use crate::harness::store::read_once;
use crate::harness::store::ATTRIBUTE;
use crate::harness::Context;
use crate::harness::Outcome;
use crate::harness::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "store_names",
        "files where no other implementation finds them",
        names,
    ),
    Test::new(
        "d46_directories_when_needed",
        "256 directories for one file",
        directories_when_needed,
    ),
    Test::new(
        "d02_colliding_long_keys",
        "an image that is given another image's data",
        colliding_long_keys,
    )
    .within(120),
    Test::new(
        "d03_key_lengths",
        "a key that fscache takes and cachefiles crashes on",
        key_lengths,
    ),
    Test::new(
        "d22_stored_file_before_copen",
        "a stored file that is written to before anything has checked it",
        stored_file_before_copen,
    ),
];

fn names(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let small = t.images.get("small")?;
    // A plain name, one with a slash, and ones that are shorter in words or in groups.
    let keys = [
        "small",
        "a/b",
        "blob with blanks",
        "\u{fc}\u{fc}\u{fc}",
        "%/%",
        "0/",
    ];
    for key in keys {
        daemon.images = vec![small.named(key)];
        let data = read_once(t, &mut daemon, &format!("domain_id=dom,fsid={key}"))?;
        same(key, &data, &t.images.contents("small")?)?;
    }
    drop(daemon);
    for key in keys {
        let file = object_file(&dir, "erofs,dom", key)?;
        let len = file
            .metadata()
            .with_context(|| format!("{key}: {}", file.display()))?
            .len();
        ensure!(len == small.size, "{}: {len} bytes", file.display());
        let mut value = [0; 64];
        let len = rustix::fs::getxattr(&file, ATTRIBUTE, &mut value)
            .with_context(|| format!("attribute of {}", file.display()))?;
        // Object size, zero point, type, content: 8 + 8 + 1 + 1 bytes, packed; no coherency data.
        ensure!(len == 18, "an attribute of {len} bytes");
        let size = u64::from_be_bytes(*value.first_chunk().context("short")?);
        ensure!(size == small.size, "the attribute's size is {size}");
    }
    Ok(())
}

fn directories_when_needed(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images = vec![t.images.get("small")?];
    read_once(t, &mut daemon, "domain_id=dom,fsid=small")?;
    let file = object_file(&dir, "erofs,dom", "small")?;
    eventually_exists(&file, &mut daemon)?;
    let volume = fs::read_dir(dir.join("cache/Ierofs,dom"))?;
    let names = volume.collect::<std::io::Result<Vec<_>>>()?.len();
    ensure!(names == 1, "{names} directories for one file");
    Ok(())
}

/// Two keys of this length that live in the same directory of the volume.
fn colliding_keys(volume: &str, len: usize) -> Result<[String; 2]> {
    let salt = layout::volume_hash(volume.as_bytes())
        .map_err(|errno| anyhow::anyhow!("no hash: {errno:?}"))?;
    let mut seen = std::collections::HashMap::new();
    for number in 0.. {
        let mut name = format!("a/{number}-");
        name.push_str(&"k".repeat(len - name.len()));
        let bucket = key::fanout_name(key::fscache_hash(salt, name.as_bytes()));
        if let Some(other) = seen.insert(bucket, name.clone()) {
            return Ok([other, name]);
        }
    }
    anyhow::bail!("no two keys collide")
}

/// All names in a directory and below.
fn walk(dir: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        names.push(entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), names)?;
        }
    }
    Ok(())
}

fn colliding_long_keys(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let images = ["plain", "twin"].map(|name| t.images.get(name));
    let [plain, twin] = images;
    let images = [plain?, twin?];
    ensure!(
        images[0].size == images[1].size,
        "the images differ in size"
    );
    // 189 bytes make the longest name there is, 254 bytes; 192 would make one of 258.
    for len in [189, 192] {
        let keys = colliding_keys("erofs,dom", len)?;
        for (index, key) in keys.iter().enumerate() {
            daemon.images = vec![images[index].named(key.clone())];
            let at = t.mount_point()?;
            let mut mount = t.mount(&format!("domain_id=dom,fsid={key}"), &at)?;
            if len > 189 {
                // The file cannot be made, which `copen` is told.
                let outcome = daemon.serve_with(&mut mount, |daemon, message| {
                    let _ = daemon.answer(message);
                    Ok(())
                })?;
                ensure!(
                    matches!(outcome, Outcome::Failed(..)),
                    "a key of {len} bytes, which has no name, was mounted"
                );
                continue;
            }
            daemon.serve(&mut mount)?.ok("mount")?;
            let expected = t.images.contents(["plain", "twin"][index])?;
            let mut reader = t.reader(&at, 0, expected.len())?;
            let data = daemon.serve(&mut reader)?.ok("read")?;
            same(&format!("key {index} of {len} bytes"), &data, &expected)?;
            let mut umount = t.unmount(&at)?;
            daemon.serve(&mut umount)?.ok("umount")?;
        }
        if len == 189 {
            for key in &keys {
                let file = object_file(&dir, "erofs,dom", key)?;
                eventually_exists(&file, &mut daemon)?;
            }
        }
    }
    drop(daemon);
    let mut names = Vec::new();
    walk(&dir, &mut names)?;
    ensure!(!names.iter().any(|name| name == "E0"), "a file named E0");
    Ok(())
}

fn key_lengths(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let small = t.images.get("small")?;
    for len in [251, 252, 253, 254, 255] {
        // EROFS names a directory in sysfs after the first 30 bytes or so.
        let mut key = len.to_string();
        key.push_str(&"k".repeat(len - key.len()));
        daemon.images = vec![small.named(key.clone())];
        let mut mount = t.mount(&format!("domain_id=d,fsid={key}"), &t.mount_point()?)?;
        let outcome = daemon.serve_with(&mut mount, |daemon, message| {
            let refused = daemon.answer_or_close(message)?;
            ensure!(
                refused.is_none_or(|errno| errno == Errno::NAMETOOLONG),
                "copen for a key of {len} bytes: {refused:?}"
            );
            Ok(())
        })?;
        if len <= key::KEY_MAX {
            outcome.ok(&format!("a mount with a key of {len} bytes"))?;
        } else {
            ensure!(
                matches!(outcome, Outcome::Failed(..)),
                "a key of {len} bytes: {outcome:?}"
            );
        }
    }
    // The module is alive.
    daemon.images = vec![small];
    t.mounted(&mut daemon, "domain_id=d,fsid=small")?;
    Ok(())
}

fn stored_file_before_copen(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let expected = t.images.contents("small")?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images = vec![t.images.get("small")?];
    let data = read_once(t, &mut daemon, "domain_id=dom,fsid=small")?;
    same("a new store", &data, &expected)?;
    let file = object_file(&dir, "erofs,dom", "small")?;
    eventually_exists(&file, &mut daemon)?;

    // Until copen the file's attribute is all that vouches for its bytes, and nobody has read it.
    let mut mount = t.mount("domain_id=dom,fsid=small", &t.mount_point()?)?;
    let open = daemon.expect_open()?;
    let other = t.images.get("plain")?;
    let write = errno_of(open.file.write_at(other.range(4096, 4096), 0))?;
    ensure!(
        write == Some(Errno::NOBUFS),
        "a write before copen: {write:?}"
    );
    daemon
        .copen_error(open.msg_id, Errno::NOENT)
        .context("copen -2")?;
    drop(open);
    let outcome = daemon.serve(&mut mount)?;
    ensure!(
        matches!(outcome, Outcome::Failed(..)),
        "the mount: {outcome:?}"
    );

    let data = read_once(t, &mut daemon, "domain_id=dom,fsid=small")?;
    same("the stored file", &data, &expected)
}
