// SPDX-License-Identifier: MIT OR Apache-2.0

//! How chunks that are wrong go, and the rest of a file stays.
//!
//! Of a file that is in use nothing may be taken away: the kernel knows what is in it, and would read zeros. And
//! it may come into use at any moment. So the file gets a second name, the kernel removes the first, which it does
//! for a file that is not in use, and from then on nobody else can find it. Then the chunks are taken out, and it
//! gets its first name again, unless there is another file by then. The C module has marked the file by then, and
//! would never use it again; there, all of it goes.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context;
use rustix::fs::AtFlags;
use rustix::fs::FallocateFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Serialize;

use super::check::Checked;
use crate::control::Evicted;
use crate::control::Targets;
use crate::cull::oldest::Place;
use crate::cull::store;
use crate::cull::store::Store;
use crate::evict::command;

/// Where files are meanwhile, beside `cache`.
const ASIDE: &str = "scrub";

/// What became of what was wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "dropped", rename_all = "kebab-case")]
pub(super) enum Mended {
    /// Nothing was.
    Nothing,
    /// The chunks are gone.
    Chunks,
    /// All of the file is gone.
    File,
    /// Nothing is gone: it is in use.
    InUse,
}

/// Drops what is wrong, and what is there in part.
pub(super) fn mend(
    run_dir: &Path,
    store: &Store,
    volume: &str,
    key: &str,
    place: &Place,
    file: &File,
    checked: &Checked,
) -> anyhow::Result<Mended> {
    // What is incomplete is no error by itself.
    if checked.wrong.is_empty() {
        return Ok(Mended::Nothing);
    }
    let targets = Targets {
        volume: volume.to_owned(),
        keys: vec![key.to_owned()],
        all: false,
        forget: false,
    };
    take_out(store, place, file, checked, || {
        command::ask(run_dir, targets)
    })
}

/// The same with whoever has the kernel remove the name.
fn take_out(
    store: &Store,
    place: &Place,
    file: &File,
    checked: &Checked,
    evict: impl FnOnce() -> anyhow::Result<Evicted>,
) -> anyhow::Result<Mended> {
    let aside = aside(store).context("cannot make a directory beside the cache")?;
    let second = format!("{}", std::process::id());
    let dir = store.directory_of(place).context("the store has changed")?;
    forget(&aside, &second)?;
    rustix::fs::linkat(&dir, &place.name, &aside, &second, AtFlags::empty())
        .context("cannot put the file aside")?;
    let result = with_second_name(&aside, &second, &dir, place, file, checked, evict);
    forget(&aside, &second)?;
    result
}

fn with_second_name(
    aside: &OwnedFd,
    second: &str,
    dir: &OwnedFd,
    place: &Place,
    file: &File,
    checked: &Checked,
    evict: impl FnOnce() -> anyhow::Result<Evicted>,
) -> anyhow::Result<Mended> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let writable = rustix::fs::openat(aside, second, flags, Mode::empty())
        .context("cannot open the file for writing")?;
    let is_it = inode_of(writable.as_fd())? == inode_of(file.as_fd())?;
    ensure!(is_it, "another file has taken its place: scrub it again");
    let evicted = evict()?;
    if !evicted.in_use.is_empty() {
        return Ok(Mended::InUse);
    }
    let failed = evicted.failed.join("; ");
    ensure!(
        failed.is_empty(),
        "the kernel could not remove it: {failed}"
    );
    if !evicted.reusable {
        return Ok(Mended::File);
    }
    if evicted.objects == 0 {
        // Somebody else has, and what is there now is newer.
        return Ok(Mended::File);
    }
    for range in checked.wrong.iter().chain(&checked.partial) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // To the end of the file's last block.
        let end = crate::block::round_up(range.end).unwrap_or(range.end);
        match rustix::fs::fallocate(&writable, flags, range.start, end - range.start) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => return Ok(Mended::File),
            Err(errno) => {
                return Err(errno).context("cannot take the chunks out: all of it is gone")
            }
        }
    }
    rustix::fs::fsync(&writable).context("fsync: all of it is gone")?;
    if checked.chunks == 0 {
        return Ok(Mended::File);
    }
    match rustix::fs::linkat(aside, second, dir, &place.name, AtFlags::empty()) {
        Ok(()) => {
            rustix::fs::fsync(dir).context("fsync of its directory")?;
            Ok(Mended::Chunks)
        }
        // It was mounted meanwhile; or its directory was empty, and is gone.
        Err(Errno::EXIST | Errno::NOENT) => Ok(Mended::File),
        Err(errno) => Err(errno).context("cannot put the file back: all of it is gone"),
    }
}

/// The directory for files meanwhile, without what a scrub that was killed has left.
fn aside(store: &Store) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(store.root(), ASIDE, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    store::open_below(store.root(), ASIDE.as_ref())
}

fn forget(aside: &OwnedFd, name: &str) -> anyhow::Result<()> {
    match rustix::fs::unlinkat(aside, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).context("cannot remove what was put aside"),
    }
}

fn inode_of(file: BorrowedFd<'_>) -> Result<impl PartialEq + std::fmt::Debug + use<>, Errno> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    use super::super::check;
    use super::super::check::tests::manifest_of;
    use super::*;
    use crate::record::Name;

    /// A store with an object of three chunks, of which the second is wrong.
    fn spoiled() -> (tempfile::TempDir, Store, Place, PathBuf, Checked) {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let place = Name::of(b"erofs,v", b"image").place().unwrap();
        let dir = root.path().join("cache").join(&*place.volume);
        let dir = dir.join(&*place.fanout);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(&place.name);
        let data = vec![7; 24_576];
        let mut wrong = data.clone();
        wrong[9000] = 8;
        fs::write(&path, &wrong).unwrap();
        let store = Store::open(root.path()).unwrap();
        let file = File::open(&path).unwrap();
        let checked = check::check(&file, &manifest_of(&data), |_| {}).unwrap();
        let wrong = checked.wrong.iter().map(|it| (it.start, it.end));
        assert_eq!(checked.chunks, 3);
        assert_eq!(wrong.collect::<Vec<_>>(), [(8192, 16_384)]);
        (root, store, place, path, checked)
    }

    fn culled(path: &Path) -> Evicted {
        fs::remove_file(path).unwrap();
        Evicted {
            objects: 1,
            reusable: true,
            ..Evicted::default()
        }
    }

    #[test]
    fn what_is_wrong_goes_and_the_rest_stays() {
        let (root, store, place, path, checked) = spoiled();
        let file = File::open(&path).unwrap();
        let mended = take_out(&store, &place, &file, &checked, || Ok(culled(&path))).unwrap();
        let aside = fs::read_dir(root.path().join(ASIDE)).unwrap();
        assert_eq!(aside.count(), 0, "no leftovers");
        if mended == Mended::File {
            eprintln!("skipped: no holes can be made here");
            return;
        }
        assert_eq!(mended, Mended::Chunks);
        let now = File::open(&path).unwrap();
        assert_eq!(
            inode_of(now.as_fd()).unwrap(),
            inode_of(file.as_fd()).unwrap()
        );
        let mut data = vec![1; 24_576];
        now.read_exact_at(&mut data, 0).unwrap();
        assert!(data[8192..16_384].iter().all(|byte| *byte == 0));
        assert!(data[..8192]
            .iter()
            .chain(&data[16_384..])
            .all(|byte| *byte == 7));
        let again = check::check(&now, &manifest_of(&[7; 24_576]), |_| {}).unwrap();
        assert_eq!((again.chunks, again.wrong.len()), (2, 0));
    }

    #[test]
    fn what_is_in_use_is_left_alone() {
        let (root, store, place, path, checked) = spoiled();
        let file = File::open(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let in_use = || {
            Ok(Evicted {
                in_use: vec!["image".into()],
                ..Evicted::default()
            })
        };
        let mended = take_out(&store, &place, &file, &checked, in_use).unwrap();
        assert_eq!(mended, Mended::InUse);
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(root.path().join(ASIDE)).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_came_meanwhile_stays() {
        let (_root, store, place, path, checked) = spoiled();
        let file = File::open(&path).unwrap();
        let mounted = || {
            let evicted = culled(&path);
            fs::write(&path, "new").unwrap();
            Ok(evicted)
        };
        let mended = take_out(&store, &place, &file, &checked, mounted).unwrap();
        assert_eq!(mended, Mended::File);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_is_marked_does_not_come_back() {
        let (root, store, place, path, checked) = spoiled();
        let file = File::open(&path).unwrap();
        let marked = || {
            Ok(Evicted {
                reusable: false,
                ..culled(&path)
            })
        };
        let mended = take_out(&store, &place, &file, &checked, marked).unwrap();
        assert_eq!(mended, Mended::File);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(root.path().join(ASIDE)).unwrap().count(), 0);
    }
}
