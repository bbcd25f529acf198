// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which file a key names, and which version of it there is.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn source() -> (tempfile::TempDir, Directory) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("blobs");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(root.path().join("secret"), "secret").unwrap();
    fs::write(dir.join("blob"), "0123456789").unwrap();
    fs::write(dir.join("sub/blob"), "x").unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"\xff\x01 ..")), "odd").unwrap();
    let source = Directory::open(&dir).unwrap();
    (root, source)
}

#[test]
fn keys_are_names_of_any_bytes() {
    let (_root, source) = source();
    for (key, size) in [(&b"blob"[..], 10), (b"sub/blob", 1), (b"\xff\x01 ..", 3)] {
        assert_eq!(source.lookup(key).unwrap().size(), size);
    }
    let blob = source.lookup(b"blob").unwrap();
    let mut part = [0; 4];
    blob.read_at(&mut part, 5).unwrap();
    assert_eq!(&part, b"5678");
    let error = blob.read_at(&mut part, 8).unwrap_err();
    assert!(matches!(error, ReadError::Shrunk(10)));
}

#[test]
fn nothing_outside_is_reached() {
    let (root, source) = source();
    let dir = root.path().join("blobs");
    let absolute = root.path().join("secret");
    for key in [
        &b""[..],
        b"..",
        b".",
        b"../secret",
        b"sub/../../secret",
        b"sub/../blob",
        b"/etc/passwd",
        b"sub//blob",
        b"blob/",
        b"blob\0",
        b"\0",
        absolute.as_os_str().as_bytes(),
    ] {
        assert_eq!(source.lookup(key).unwrap_err(), LookupError::BadName);
    }

    symlink("../secret", dir.join("up")).unwrap();
    symlink(&absolute, dir.join("absolute")).unwrap();
    symlink("..", dir.join("parent")).unwrap();
    symlink("/proc/self/root", dir.join("magic")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    for key in [
        "up",
        "absolute",
        "parent/secret",
        "magic/etc/passwd",
        "loop",
    ] {
        let error = source.lookup(key.as_bytes()).unwrap_err();
        assert_eq!(error, LookupError::Escape, "{key}");
        assert_eq!(error.errno(), Errno::NOENT);
    }
    symlink("sub/blob", dir.join("inside")).unwrap();
    assert_eq!(source.lookup(b"inside").unwrap().size(), 1);
}

#[test]
fn only_regular_files_are_blobs() {
    let (root, source) = source();
    let fifo = root.path().join("blobs/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert_eq!(source.lookup(b"sub").unwrap_err(), LookupError::NotAFile);
    assert_eq!(source.lookup(b"fifo").unwrap_err(), LookupError::NotAFile);
    assert_eq!(source.lookup(b"none").unwrap_err(), LookupError::Unknown);
    assert_eq!(source.lookup(b"blob/x").unwrap_err(), LookupError::Unknown);
    let long = [b'x'; 256];
    assert_eq!(source.lookup(&long).unwrap_err(), LookupError::Unknown);
}

#[test]
fn a_change_in_place_is_seen_before_the_data_is_used() {
    let (root, source) = source();
    let path = root.path().join("blobs/blob");
    let mut blob = source.lookup(b"blob").unwrap();
    let before = blob.identify().unwrap();
    let mut part = [0; 4];
    blob.read_at(&mut part, 0).unwrap();
    // The same size, and at once: the grain of times has passed while it was identified.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(b"x", 0)
        .unwrap();
    let error = blob.read_at(&mut part, 0).unwrap_err();
    assert!(matches!(error, ReadError::Changed(_)), "{error}");
    let mut now = source.lookup(b"blob").unwrap();
    let now_is = now.identify().unwrap();
    assert_ne!(before.token, now_is.token);
    // Who goes by the size, or by a manifest, does not look.
    blob.check_by(Check::Size);
    blob.read_at(&mut part, 0).unwrap();

    // Its time is set back, which is a change of its own.
    let file = File::open(&path).unwrap();
    let set = fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    file.set_times(set).unwrap();
    assert!(now.read_at(&mut part, 0).is_err());
    // Another file under its name: the one that is open is no longer what the name says.
    let mut now = source.lookup(b"blob").unwrap();
    now.identify().unwrap();
    fs::write(root.path().join("blobs/new"), "0123456789").unwrap();
    fs::rename(root.path().join("blobs/new"), &path).unwrap();
    assert!(now.read_at(&mut part, 0).is_err());
}

#[test]
fn the_device_does_not_count_and_all_else_does() {
    let stat = || rustix::fs::stat("/").unwrap();
    let identity = |change: fn(&mut Stat)| {
        let mut stat = stat();
        change(&mut stat);
        Marks::of(&stat).unwrap().identity()
    };
    let same = identity(|_| {});
    assert_eq!(same, identity(|stat| stat.st_dev += 1));
    assert_eq!(same, identity(|stat| stat.st_atime += 1));
    let changes: [fn(&mut Stat); 6] = [
        |stat| stat.st_ino += 1,
        |stat| stat.st_size += 1,
        |stat| stat.st_mtime += 1,
        |stat| stat.st_mtime_nsec ^= 1,
        |stat| stat.st_ctime += 1,
        |stat| stat.st_ctime_nsec ^= 1,
    ];
    for change in changes {
        assert_ne!(same.token, identity(change).token);
    }
}

#[test]
fn what_was_changed_just_now_is_not_settled() {
    let marks = |seconds, nanoseconds| Marks {
        inode: 1,
        size: 1,
        modified: (0, 0),
        changed: (seconds, nanoseconds),
    };
    let now = SystemTime::UNIX_EPOCH + Duration::new(1000, 500_000_000);
    let ms = |n| Some(Duration::from_millis(n));
    assert_eq!(marks(1000, 499_000_000).unsettled(now), ms(19));
    assert_eq!(marks(1000, 480_000_000).unsettled(now), None);
    assert_eq!(marks(1000, 0).unsettled(now), ms(600), "whole seconds");
    assert_eq!(marks(999, 0).unsettled(now), None);
    assert_eq!(marks(2000, 0).unsettled(now), None, "another clock");
    assert_eq!(marks(-1, 0).unsettled(now), None);
}
