// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whose bytes are stored: versions that a daemon tells, and files that are copies.
//!
//! The images `plain` and `twin` have one size and other data: under one name they are two versions.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command as Program;
use std::sync::Arc;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Token;
use rustix::fs::AtFlags;
use rustix::fs::StatxFlags;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::same;
use crate::harness::store;
use crate::harness::store::object_file;
use crate::harness::store::read_once;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Image;
use crate::harness::Outcome;
use crate::harness::Test;
use crate::store::listing::IDENTITY as ATTRIBUTE;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "identity_must_be_on",
        "a token that is taken, or an OPEN that stays open, where nobody has asked for tokens",
        must_be_on,
    ),
    Test::new(
        "identity_asked_of_bound_cache",
        "a daemon that takes a cache over and cannot know whether tokens are on",
        asked_of_bound_cache,
    ),
    Test::new(
        "identity_versions",
        "bytes of one version that are served as another's",
        versions,
    ),
    Test::new(
        "identity_reopening",
        "a mounted image that goes on with bytes of another version",
        reopening,
    ),
    Test::new(
        "identity_reopened_untold",
        "bytes of no known version that are stored under the token of one",
        reopened_untold,
    ),
    Test::new(
        "identity_copied_file",
        "zeros, where a file of the store was copied and its holes were not",
        copied_file,
    ),
    Test::new(
        "identity_attribute",
        "an attribute that says something else than docs/protocol.md",
        attribute,
    ),
    Test::new(
        "identity_without_attribute",
        "a file of the C module's that is not read, or is taken for a certain version",
        without_attribute,
    ),
];

const A: &str = "aa00";
const B: &str = "BB01";

fn token(text: &str) -> Result<Token> {
    Ok(text.parse()?)
}

/// The two versions of `plain`.
fn two_versions(t: &Context) -> Result<[Arc<Image>; 2]> {
    let [plain, twin] = [t.images.get("plain")?, t.images.get("twin")?];
    ensure!(plain.size == twin.size, "the versions differ in size");
    Ok([plain, twin.named("plain")])
}

/// A daemon that serves one version in `dir`, under this token if there is one.
fn serving(t: &Context, dir: &Path, image: &Arc<Image>, told: Option<&str>) -> Result<Daemon> {
    let mut daemon = t.daemon_with(dir, &[Command::Identity], &[])?;
    daemon.images.push(Arc::clone(image));
    daemon.token = told.map(token).transpose()?;
    Ok(daemon)
}

/// Mounts, reads all and unmounts in a session of its own; tells how many READs that took. The data must be that of
/// the image `data`.
fn session(
    t: &Context,
    dir: &Path,
    image: &Arc<Image>,
    data: &str,
    told: Option<&str>,
) -> Result<usize> {
    let mut daemon = serving(t, dir, image, told)?;
    let read = read_once(t, &mut daemon, "fsid=plain")?;
    same(data, &read, &t.images.contents(data)?)?;
    Ok(daemon.reads().len())
}

fn stored_file(dir: &Path) -> Result<PathBuf> {
    object_file(dir, "erofs,plain", "plain")
}

fn must_be_on(t: &Context) -> Result<()> {
    // A module that does not have it says so.
    t.device()?.send(&Command::Identity)?;
    let mut daemon = t.daemon(&["plain"])?;
    let late = daemon.command("identity on").err();
    ensure!(late == Some(Errno::BUSY), "after bind: {late:?}");
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    let open = daemon.expect_open()?;
    let size = t.images.get("plain")?.size;
    let told = daemon.command(&format!("copen {},{size},{A}", open.msg_id));
    ensure!(told == Err(Errno::INVAL), "a token: {told:?}");
    let again = daemon.copen(open.msg_id, size);
    ensure!(again == Err(Errno::INVAL), "a second answer: {again:?}");
    drop(open);
    let outcome = daemon.serve_with(&mut mount, |_, message| {
        anyhow::bail!("another message: {message:?}")
    })?;
    ensure!(
        matches!(outcome, Outcome::Failed(..)),
        "mounted: {outcome:?}"
    );
    // What is no token ends the OPEN where tokens are taken, too.
    drop(daemon);
    let mut daemon = serving(t, &t.new_dir()?, &t.images.get("plain")?, Some(A))?;
    let mut mount = t.mount("fsid=plain", &at)?;
    let open = daemon.expect_open()?;
    let told = daemon.command(&format!("copen {},{size},0", open.msg_id));
    ensure!(told == Err(Errno::INVAL), "half a byte: {told:?}");
    drop(open);
    let outcome = daemon.serve_with(&mut mount, |_, message| {
        anyhow::bail!("another message: {message:?}")
    })?;
    ensure!(
        matches!(outcome, Outcome::Failed(..)),
        "mounted: {outcome:?}"
    );
    Ok(())
}

fn asked_of_bound_cache(t: &Context) -> Result<()> {
    let image = t.images.get("plain")?;
    let mut daemon = serving(t, &t.new_dir()?, &image, Some(A))?;
    daemon.command("identity on").context("after bind")?;
    let read = read_once(t, &mut daemon, "fsid=plain")?;
    same("plain", &read, &t.images.contents("plain")?)?;
    daemon.command("identity on").context("later")?;
    Ok(())
}

fn versions(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let [old, new] = two_versions(t)?;
    // (served, its data, told, whether what is stored counts)
    let sessions = [
        (&old, "plain", Some(A), false),
        (&old, "plain", Some("AA00"), true),
        (&new, "twin", Some(B), false),
        (&new, "twin", Some(B), true),
        (&old, "plain", Some(A), false),
        // Who tells nothing gets what is stored; and from then on nobody knows what that is.
        (&old, "plain", None, true),
        (&old, "plain", None, true),
        (&new, "twin", Some(B), false),
        (&new, "twin", None, true),
        (&new, "twin", Some(B), false),
        (&new, "twin", Some("bb01"), true),
    ];
    for (number, (image, data, told, counts)) in sessions.into_iter().enumerate() {
        let reads = session(t, &dir, image, data, told)
            .with_context(|| format!("session {number}, {data} as {told:?}"))?;
        ensure!(
            (reads == 0) == counts,
            "session {number}, {data} as {told:?}: {reads} READs"
        );
    }
    Ok(())
}

/// A daemon with an image that is mounted as version A, of which the first half is stored.
fn half_stored(t: &Context, dir: &Path) -> Result<(Daemon, PathBuf, usize)> {
    let [old, _] = two_versions(t)?;
    let mut daemon = serving(t, dir, &old, Some(A))?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let half = t.images.contents("plain")?.len() / 2 / 4096 * 4096;
    let mut reader = t.reader(&at, 0, half)?;
    daemon.serve(&mut reader)?.ok("read")?;
    drop_caches()?;
    Ok((daemon, at, half))
}

fn reopening(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let (mut daemon, at, half) = half_stored(t, &dir)?;
    let [old, new] = two_versions(t)?;
    let expected = t.images.contents("plain")?;
    let last = expected.len() - 4096;
    daemon.open.clear();

    // The daemon has another version now.
    daemon.images = vec![new];
    daemon.token = Some(token(B)?);
    let mut reader = t.block_reader(&at, last, 4096)?;
    let mut refused = None;
    let outcome = daemon.serve_with(&mut reader, |daemon, message| {
        refused = refused.or(daemon.answer_or_close(message)?);
        Ok(())
    })?;
    ensure!(refused == Some(Errno::STALE), "copen: {refused:?}");
    ensure!(
        matches!(outcome, Outcome::Failed(Errno::IO, _)),
        "the reader: {outcome:?}"
    );
    // What is stored is read on.
    let mut reader = t.block_reader(&at, 0, half / 2)?;
    let data = daemon.serve_with(&mut reader, |_, message| {
        anyhow::bail!("a message: {message:?}")
    })?;
    same("the first half", &data.ok("read")?, &expected[..half / 2])?;

    // The old version is back.
    daemon.images = vec![old];
    daemon.token = Some(token(A)?);
    let mut reader = t.block_reader(&at, last, 4096)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the last block", &data, &expected[last..])?;
    Ok(())
}

fn reopened_untold(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let (mut daemon, at, _) = half_stored(t, &dir)?;
    let [old, _] = two_versions(t)?;
    let expected = t.images.contents("plain")?;
    let last = expected.len() - 4096;
    daemon.open.clear();
    daemon.token = None;
    let mut reader = t.block_reader(&at, last, 4096)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the last block", &data, &expected[last..])?;
    // Its version is not known any more: a daemon that knows one cannot go on with it.
    daemon.open.clear();
    daemon.token = Some(token(A)?);
    let mut reader = t.block_reader(&at, last - 4096, 4096)?;
    let mut refused = None;
    daemon.serve_with(&mut reader, |daemon, message| {
        refused = refused.or(daemon.answer_or_close(message)?);
        Ok(())
    })?;
    ensure!(refused == Some(Errno::STALE), "copen: {refused:?}");
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    drop(daemon);
    let reads = session(t, &dir, &old, "plain", Some(A))?;
    ensure!(
        reads > 0,
        "what was stored without a token counts as version {A}"
    );
    Ok(())
}

fn copied_file(t: &Context) -> Result<()> {
    let [old, _] = two_versions(t)?;
    let expected = t.images.contents("plain")?;
    for told in [Some(A), None] {
        let dir = t.new_dir()?;
        let mut daemon = serving(t, &dir, &old, told)?;
        let at = t.mounted(&mut daemon, "fsid=plain")?;
        let mut reader = t.block_reader(&at, 0, 4096)?;
        daemon.serve(&mut reader)?.ok("read")?;
        let mut umount = t.unmount(&at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
        drop(daemon);

        // As a backup does that knows no holes, with all attributes.
        let file = stored_file(&dir)?;
        let copy = file.with_extension("copy");
        let copied = Program::new("cp")
            .args(["-a", "--sparse=never"])
            .args([&file, &copy])
            .status()?;
        ensure!(copied.success(), "cp: {copied}");
        let mut value = [0; 128];
        for name in [ATTRIBUTE, store::ATTRIBUTE] {
            rustix::fs::getxattr(&copy, name, &mut value)
                .with_context(|| format!("{name} of the copy"))?;
        }
        fs::rename(&copy, &file)?;
        drop_caches()?;

        let mut daemon = serving(t, &dir, &old, told)?;
        let data = read_once(t, &mut daemon, "fsid=plain")?;
        same("the image whose file was copied", &data, &expected)?;
        ensure!(!daemon.reads().is_empty(), "the copy counts as stored");
    }
    Ok(())
}

/// The generation of a file's inode.
fn generation(file: &Path) -> Result<u32> {
    let listed = Program::new("lsattr").arg("-v").arg(file).output()?;
    let text = String::from_utf8(listed.stdout)?;
    let word = text.split_whitespace().next();
    word.and_then(|number| number.parse().ok())
        .with_context(|| format!("lsattr -v: {text:?}"))
}

fn attribute(t: &Context) -> Result<()> {
    let [old, _] = two_versions(t)?;
    for told in [Some(A), None] {
        let dir = t.new_dir()?;
        session(t, &dir, &old, "plain", told)?;
        let file = stored_file(&dir)?;
        let mut value = [0; 128];
        let len = rustix::fs::getxattr(&file, ATTRIBUTE, &mut value).context(ATTRIBUTE)?;
        let open = fs::File::open(&file)?;
        let made = rustix::fs::statx(&open, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME)?;
        ensure!(
            made.stx_mask & StatxFlags::BTIME.bits() != 0,
            "the file system does not tell when a file was made"
        );
        let token: &[u8] = if told.is_some() { &[0xaa, 0] } else { &[] };
        let expected = [
            &[1][..],
            &fs::metadata(&file)?.ino().to_be_bytes(),
            &generation(&file)?.to_be_bytes(),
            &made.stx_btime.tv_sec.to_be_bytes(),
            &made.stx_btime.tv_nsec.to_be_bytes(),
            &[u8::try_from(token.len())?],
            token,
        ]
        .concat();
        ensure!(
            value[..len] == expected,
            "{:?}, not {expected:?}",
            &value[..len]
        );
    }
    Ok(())
}

fn without_attribute(t: &Context) -> Result<()> {
    let [old, _] = two_versions(t)?;
    for (told, counts) in [(None, true), (Some(A), false)] {
        let dir = t.new_dir()?;
        session(t, &dir, &old, "plain", None)?;
        rustix::fs::removexattr(&stored_file(&dir)?, ATTRIBUTE).context(ATTRIBUTE)?;
        let reads = session(t, &dir, &old, "plain", told)?;
        ensure!((reads == 0) == counts, "as {told:?}: {reads} READs");
    }
    Ok(())
}
