// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether a cache says of no byte that it is stored and of a version which it is not.
//!
//! First without the module: of each file of the store, what counts as data must be that of the version whose
//! token the file carries. Then with it: each object is mounted under a token, mostly that of its file, and all
//! of it is read.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Fill;
use cachefiles_proto::Message;
use cachefiles_proto::BLOCK_SIZE;

use super::random::Random;
use super::versions;
use super::versions::letter;
use super::versions::Versions;
use super::versions::OBJECTS;
use super::versions::VERSIONS;
use super::visit;
use super::visit::Step;
use crate::harness::image::Aligned;
use crate::harness::Context;
use crate::harness::Event;
use crate::store::listing::Entry;
use crate::store::listing::Listing;
use crate::store::listing::ATTRIBUTE;
use crate::store::listing::IDENTITY;

/// What was found in a store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Files that carry the token of a version.
    pub told: usize,
    /// Files that carry none.
    pub untold: usize,
    /// Bytes that are stored under a token.
    pub bytes: u64,
    /// READs that were sent for the rest.
    pub reads: usize,
}

/// A file of the store.
struct Stored {
    entry: Entry,
    version: Option<usize>,
}

/// How the versions are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// A token stands for the version that it was made for.
    Right,
    /// It is taken for that of the next version. Then token and bytes disagree, which must be found.
    Exchanged,
}

impl Tokens {
    fn version(self, object: usize, token: &[u8]) -> Option<usize> {
        let version = versions::version_of(object, token)?;
        Some(match self {
            Tokens::Right => version,
            Tokens::Exchanged => (version + 1) % VERSIONS,
        })
    }

    fn token(self, object: usize, version: usize) -> Result<cachefiles_proto::Token> {
        match self {
            Tokens::Right => versions::token(object, version),
            Tokens::Exchanged => versions::token(object, (version + VERSIONS - 1) % VERSIONS),
        }
    }
}

/// Looks at all files of a store, as they are on the disk; the kernel's module must not use it.
///
/// # Errors
///
/// Something counts as stored that is not there, or of another version.
fn look(dir: &Path, versions: &Versions, tokens: Tokens) -> Result<Vec<Option<Stored>>> {
    let listing = Listing::of(dir)?;
    let mut files = listing
        .files()
        .filter(|(path, _)| path.starts_with("cache"))
        .count();
    let mut all = Vec::new();
    for object in 0..OBJECTS {
        let path = versions::path(dir, object)?;
        let Some(entry) = listing.get(path.strip_prefix(dir)?) else {
            all.push(None);
            continue;
        };
        files -= 1;
        let stored = stored(&path, entry, object, versions, tokens)
            .with_context(|| format!("the file of {}: {entry}", versions::key(object)))?;
        all.push(Some(stored));
    }
    ensure!(files == 0, "{files} files of no object");
    Ok(all)
}

fn stored(
    path: &Path,
    entry: &Entry,
    object: usize,
    versions: &Versions,
    tokens: Tokens,
) -> Result<Stored> {
    let size = entry
        .object_size()
        .with_context(|| format!("a name without {ATTRIBUTE}"))?;
    let wanted = versions.image(object, 0).size;
    ensure!(size == wanted, "a size of {size}, not {wanted}");
    let identity = entry
        .attributes
        .get(IDENTITY)
        .with_context(|| format!("a name without {IDENTITY}"))?;
    // See docs/protocol.md, "The store on disk".
    let (&form, rest) = identity.split_first().context("it is empty")?;
    let inode = u64::from_be_bytes(*rest.first_chunk().context("it is short")?);
    let token = rest.get(25..).context("it is short")?;
    ensure!(
        form == 1 && usize::from(rest[24]) == token.len(),
        "an identity of another form"
    );
    ensure!(
        inode == fs::metadata(path)?.ino(),
        "the identity of another file"
    );
    let version = match token {
        [] => None,
        token => Some(
            tokens
                .version(object, token)
                .context("the token of no version")?,
        ),
    };
    if let Some(version) = version {
        compare(path, entry, versions, (object, version))?;
    }
    Ok(Stored {
        entry: entry.clone(),
        version,
    })
}

/// Compares what counts as data of a file with a version.
fn compare(
    path: &Path,
    entry: &Entry,
    versions: &Versions,
    (object, version): (usize, usize),
) -> Result<()> {
    // Directly: what is read through memory could make data of holes.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let image = versions.image(object, version);
    for &(from, to) in &entry.data {
        let wanted = image.range(from, to - from);
        let mut found = Aligned::new(&vec![0; wanted.len()]);
        file.read_exact_at(found.get_mut(), from)
            .with_context(|| format!("data at {from} to {to}"))?;
        let blocks = found.get().chunks(BLOCK_SIZE);
        for (number, (found, wanted)) in blocks.zip(wanted.chunks(BLOCK_SIZE)).enumerate() {
            if found != wanted {
                let begin_alike = found[..8] == wanted[..8];
                bail!(
                    "block {} counts as data of version {}, and is {}{}",
                    usize::try_from(from)? / BLOCK_SIZE + number,
                    letter(version),
                    versions.whose(found),
                    if begin_alike { ", in part" } else { "" }
                );
            }
        }
    }
    Ok(())
}

/// Checks the cache in `dir`, and fills it.
///
/// # Errors
///
/// A byte that counts as stored is not there, or is of another version; something failed.
pub fn run(
    t: &Context,
    dir: &Path,
    versions: &Versions,
    tokens: Tokens,
    random: &mut Random,
) -> Result<Found> {
    let stored = look(dir, versions, tokens)?;
    let mut found = Found::default();
    for file in stored.iter().flatten() {
        if file.version.is_some() {
            found.told += 1;
            found.bytes += file.entry.stored();
        } else {
            found.untold += 1;
        }
    }
    // Of each object the version that is served.
    let served: Vec<usize> = stored
        .iter()
        .map(|file| {
            let stored = file.as_ref().and_then(|file| file.version);
            match stored {
                Some(version) if random.percent(90) => version,
                _ => random.below(VERSIONS),
            }
        })
        .collect();
    found.reads = read_all(t, dir, versions, tokens, &stored, &served, random)?;
    Ok(found)
}

/// Mounts, reads and unmounts each object; how many READs came.
fn read_all(
    t: &Context,
    dir: &Path,
    versions: &Versions,
    tokens: Tokens,
    stored: &[Option<Stored>],
    served: &[usize],
    random: &mut Random,
) -> Result<usize> {
    let fill = if random.percent(50) {
        Fill::Direct
    } else {
        Fill::Buffered
    };
    // A READ for all that is missing of a megabyte.
    let setup = [
        Command::Fill(fill),
        Command::Identity,
        Command::Fetch(1 << 20),
    ];
    let mut daemon = t.daemon_with(dir, &setup, &[])?;
    let mut steps = Vec::new();
    for (object, version) in served.iter().enumerate() {
        // Of what is not there only some: it takes as long as the rest.
        if stored[object].is_none() && random.percent(75) {
            continue;
        }
        let len = versions::len(object);
        let version = Some(*version);
        steps.extend([
            Step::Mount(object),
            Step::Read {
                object,
                version,
                from: 0,
                len,
            },
            Step::Unmount(object),
        ]);
    }
    let mut task = visit::start(t, &steps)?;
    let outcome = daemon.serve_with(&mut task, |daemon, message| {
        let Message::Open(open) = message else {
            return daemon.answer(message);
        };
        let object = object_of(&open.cookie_key)?;
        daemon.token = Some(tokens.token(object, served[object])?);
        daemon
            .accept(open, versions.image(object, served[object]))
            .map(drop)
    });
    // Whoever failed half-way has left something mounted.
    if !matches!(&outcome, Ok(crate::harness::Outcome::Done(_))) {
        for object in 0..OBJECTS {
            let at = visit::mount_points(t).join(versions::key(object));
            let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
        }
    }
    outcome?.ok("the reader")?;
    let mut keys = std::collections::BTreeMap::new();
    for event in &daemon.log {
        match event {
            Event::Open(_, id, key) => drop(keys.insert(*id, object_of(key)?)),
            Event::Read(_, id, off, len) => {
                let object = *keys.get(id).context("a READ of no object")?;
                let file = stored[object].as_ref();
                let counts = file.filter(|file| file.version == Some(served[object]));
                ensure!(
                    !counts.is_some_and(|file| file.entry.overlaps(*off, *len)),
                    "asked for {off}+{len} of {}, some of which is stored",
                    versions::key(object)
                );
            }
            Event::Close(..) => {}
        }
    }
    Ok(daemon.reads().len())
}

fn object_of(key: &[u8]) -> Result<usize> {
    (0..OBJECTS)
        .find(|&object| versions::key(object).as_bytes() == key)
        .context("an unknown object")
}
