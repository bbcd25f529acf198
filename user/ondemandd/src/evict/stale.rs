// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a stored file is made stale while the kernel has it in use, for an OPEN that is not answered yet.

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::cull::oldest::Place;
use crate::cull::store::open_below;
use crate::cull::store::Store;

/// What a module tells by whether a stored file is right.
const ATTRIBUTE: &str = "user.CacheFiles.cache";
/// What it has of a file of which nothing is known: a size that no object has, then a zero, the type of a file, and
/// its contents. An attribute that is missing would be an error to the C module, and no reason to replace a file.
const STALE: [u8; 18] = {
    let mut bytes = [0; 18];
    let mut at = 0;
    while at < 8 {
        bytes[at] = 0xff;
        at += 1;
    }
    bytes[16] = 1;
    bytes
};

/// Makes an object's file stale, if there is one: whoever looks it up, or has just looked it up and was not
/// told yet that it is right, replaces it. It stays so after a loss of power; and what is not there does, too.
///
/// # Errors
///
/// What the file system says.
pub(super) fn make_stale(store: &Store, place: &Place) -> Result<(), Errno> {
    let not_there = |errno| matches!(errno, Errno::NOENT | Errno::NOTDIR);
    let mut deepest = store.cache()?;
    for name in [&place.volume, &place.fanout] {
        match open_below(&deepest, name) {
            Ok(dir) => deepest = dir,
            // It may have gone a moment ago.
            Err(errno) if not_there(errno) => return rustix::fs::fsync(&deepest),
            Err(errno) => return Err(errno),
        }
    }
    // NONBLOCK: there may be anything in its place.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&deepest, &place.name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(errno) if not_there(errno) => return rustix::fs::fsync(&deepest),
        Err(errno) => return Err(errno),
    };
    rustix::fs::fsetxattr(&file, ATTRIBUTE, &STALE, XattrFlags::empty())?;
    rustix::fs::fsync(&file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_file_is_made_stale_or_is_not_there() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let dir = root.path().join("cache/Ia/@00");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("Dx"), "x").unwrap();
        let store = Store::open(root.path()).unwrap();
        let place = |volume: &str, name: &str| Place {
            volume: Arc::new(volume.into()),
            fanout: Arc::new("@00".into()),
            name: name.into(),
        };
        make_stale(&store, &place("Ia", "Dnone")).unwrap();
        make_stale(&store, &place("Inone", "Dx")).unwrap();
        match make_stale(&store, &place("Ia", "Dx")) {
            // A file system without attributes is none for a cache.
            Err(Errno::OPNOTSUPP) => return,
            other => other.unwrap(),
        }
        let mut value = [0; 32];
        let file = fs::File::open(dir.join("Dx")).unwrap();
        let len = rustix::fs::fgetxattr(&file, ATTRIBUTE, &mut value[..]).unwrap();
        let be = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        assert_eq!((len, be(&value[..8]), be(&value[8..16])), (18, u64::MAX, 0));
        assert_eq!(value[16..18], [1, 0]);
        symlink("/etc/passwd", dir.join("Dlink")).unwrap();
        assert_eq!(make_stale(&store, &place("Ia", "Dlink")), Err(Errno::LOOP));
    }
}
