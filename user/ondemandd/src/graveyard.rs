// SPDX-License-Identifier: MIT OR Apache-2.0

//! Empties `graveyard/`, to which the kernel moves directories that it wants to be rid of.
//!
//! The kernel deletes single files itself. A directory, of a volume that does not fit any more or
//! was culled, is renamed to a number in the graveyard, and to delete it is the daemon's part.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::io::Errno;
use tracing::debug;

use crate::cull::store;

/// How deep a grave may be. The kernel's own are two directories deep.
const DEPTH: usize = 32;

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Emptied {
    /// Graves.
    pub(crate) graves: u64,
    /// Inodes, directories with them.
    pub(crate) files: u64,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// The last thing that could not be deleted, if any.
    pub(crate) failed: Option<Errno>,
}

/// Deletes all that is in the directory `graveyard`, following neither links nor mounts. What cannot
/// be deleted stays, and does not keep the rest.
///
/// # Errors
///
/// The directory cannot be read.
pub(crate) fn empty(graveyard: impl AsFd) -> Result<Emptied, Errno> {
    let mut emptied = Emptied::default();
    // Nothing breaks the loop.
    let _ = store::for_each_entry(&graveyard, |name| {
        match remove(&graveyard, name, DEPTH, &mut emptied) {
            Ok(()) => emptied.graves += 1,
            Err(error) => {
                debug!(?name, %error, "grave not deleted");
                emptied.failed = Some(error);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(emptied)
}

fn remove(
    parent: impl AsFd,
    name: &OsStr,
    depth: usize,
    emptied: &mut Emptied,
) -> Result<(), Errno> {
    let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
        remove_contents(store::open_below(&parent, name)?, depth, emptied)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
    } else {
        rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
    }
    emptied.files += 1;
    emptied.bytes += store::bytes_of(&stat);
    Ok(())
}

/// Empties a directory. One that changes while it is read may show a part only, so it is read until
/// it shows nothing.
fn remove_contents(dir: impl AsFd, depth: usize, emptied: &mut Emptied) -> Result<(), Errno> {
    loop {
        let (mut found, mut failed) = (false, None);
        // Nothing breaks the loop.
        let _ = store::for_each_entry(&dir, |name| {
            found = true;
            if let Err(error) = remove(&dir, name, depth, emptied) {
                failed = Some(error);
            }
            ControlFlow::Continue(())
        })?;
        match failed {
            Some(error) => return Err(error),
            None if !found => return Ok(()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_goes_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let yard = root.path().join("graveyard");
        for fanout in 0..20 {
            let dir = yard.join(format!("0001/@{fanout:02x}"));
            fs::create_dir_all(&dir).unwrap();
            for file in 0..30 {
                fs::write(dir.join(format!("D{file}")), [1; 5000]).unwrap();
            }
        }
        fs::write(yard.join("0002"), "a file").unwrap();
        fs::create_dir(root.path().join("kept")).unwrap();
        fs::write(root.path().join("kept/file"), "kept").unwrap();
        symlink("../kept", yard.join("0003")).unwrap();
        symlink("../../../kept", yard.join("0001/@00/Dlink")).unwrap();

        let fd = fs::File::open(&yard).unwrap();
        let emptied = empty(&fd).unwrap();
        assert_eq!((emptied.graves, emptied.failed), (3, None));
        assert_eq!(emptied.files, 20 * 30 + 20 + 1 + 3);
        assert!(emptied.bytes >= 600 * 5000, "{emptied:?}");
        assert_eq!(fs::read_dir(&yard).unwrap().count(), 0);
        assert!(root.path().join("kept/file").exists());
        assert_eq!(empty(&fd).unwrap(), Emptied::default());
    }

    #[test]
    fn what_is_too_deep_does_not_keep_the_rest() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().join("a");
        for _ in 0..DEPTH {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(root.path().join("b/c")).unwrap();
        let emptied = empty(fs::File::open(root.path()).unwrap()).unwrap();
        assert_eq!(
            (emptied.graves, emptied.failed),
            (1, Some(Errno::NAMETOOLONG))
        );
        assert!(deep.exists());
        assert!(!root.path().join("b").exists());
    }
}
