// SPDX-License-Identifier: MIT OR Apache-2.0

//! The file: what is read back, what is not believed, and what becomes of the store then.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::begin::for_bind;
use super::begin::for_takeover;
use super::begin::Claim;
use super::*;

/// A cache's directory.
struct Cache {
    root: tempfile::TempDir,
    claim: Claim,
}

impl Cache {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let claim = Claim::new(root.path()).unwrap().unwrap();
        Cache { root, claim }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join(FILE)
    }

    fn bind(&self) -> Record {
        for_bind(&self.claim, self.root.path()).unwrap();
        Record::open(&self.path()).unwrap()
    }

    fn take_over(&self) -> Record {
        for_takeover(Some(&self.claim), self.root.path()).unwrap();
        Record::open(&self.path()).unwrap()
    }

    /// A stored file of an object.
    fn store(&self, name: &Name) -> PathBuf {
        let place = name.place().unwrap();
        let dir = self.root.path().join("cache").join(&*place.volume);
        let dir = dir.join(&*place.fanout);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(&place.name);
        fs::write(&path, "x").unwrap();
        path
    }
}

fn name(cookie: &str) -> Name {
    Name::of(b"erofs,v", cookie.as_bytes())
}

fn entry(number: u8) -> Entry {
    Entry {
        token: Token::new(&[number]).unwrap(),
        size: 4096,
        sole: true,
        manifest: number.is_multiple_of(2),
        what: format!("version {number} of 5\u{20ac}\n"),
        changed: None,
    }
}

#[test]
fn what_is_noted_is_read_by_whoever_comes_later() {
    let cache = Cache::new();
    let record = cache.bind();
    assert_eq!(record.get(&name("a")).unwrap(), (None, None));
    let path = cache.store(&name("a"));
    record.note(&name("a"), &entry(1)).unwrap();
    record.note(&name("b"), &entry(2)).unwrap();
    record.note(&name("a"), &entry(4)).unwrap();
    record.note_change(&name("a"), "was, is").unwrap();
    let changed = Entry {
        changed: Some("was, is".to_owned()),
        ..entry(4)
    };
    for other in [&record, &Record::open(&cache.path()).unwrap()] {
        assert_eq!(other.get(&name("a")).unwrap().0, Some(changed.clone()));
        assert_eq!(other.get(&name("b")).unwrap().0, Some(entry(2)));
    }
    assert_eq!(Record::look(&cache.path()).unwrap().entries.len(), 2);

    // Another process adds something: the keeper, that has evicted a file.
    let keeper = Record::open(&cache.path()).unwrap();
    keeper.forget(&name("b")).unwrap();
    assert!(!record.get(&name("b")).unwrap().0.unwrap().manifest);
    record.note(&name("c"), &entry(3)).unwrap();
    assert_eq!(keeper.get(&name("c")).unwrap().0, Some(entry(3)));

    // What has no file is left out, and what was changed is so no more: nothing is mounted.
    drop((record, keeper));
    let record = cache.bind();
    assert_eq!(record.lines(), 2);
    assert_eq!(record.get(&name("a")).unwrap().0, Some(entry(4)));
    assert_eq!(record.get(&name("b")).unwrap().0, None);
    let before = fs::metadata(cache.path()).unwrap().modified().unwrap();
    drop(cache.bind());
    let after = fs::metadata(cache.path()).unwrap().modified().unwrap();
    assert_eq!(before, after, "nothing to tidy up");
    assert!(path.exists());
    let mode = fs::metadata(cache.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn half_a_line_was_answered_by_nobody() {
    let cache = Cache::new();
    let record = cache.bind();
    record.note(&name("a"), &entry(1)).unwrap();
    let whole = fs::read(cache.path()).unwrap();
    record.note(&name("a"), &entry(2)).unwrap();
    let all = fs::read(cache.path()).unwrap();
    drop(record);
    for len in whole.len()..all.len() {
        File::options()
            .write(true)
            .open(cache.path())
            .unwrap()
            .set_len(u64::try_from(whole.len()).unwrap())
            .unwrap();
        let mut file = File::options().append(true).open(cache.path()).unwrap();
        file.write_all(&all[whole.len()..len]).unwrap();
        let record = Record::open(&cache.path()).unwrap();
        assert_eq!(record.get(&name("a")).unwrap().0, Some(entry(1)));
        record.note(&name("b"), &entry(3)).unwrap();
        drop(record);
        let record = Record::open(&cache.path()).unwrap();
        assert_eq!(record.get(&name("b")).unwrap().0, Some(entry(3)));
    }
}

#[test]
fn a_record_that_is_not_to_be_believed_drops_all() {
    type Spoil = fn(&Cache);
    let spoil: [(&str, Spoil); 5] = [
        ("damaged", |cache| {
            let mut text = fs::read(cache.path()).unwrap();
            let at = text.len() - 3;
            text[at] ^= 1;
            fs::write(cache.path(), text).unwrap();
        }),
        ("a copy", |cache| {
            let copy = cache.root.path().join("copy");
            fs::copy(cache.path(), &copy).unwrap();
            fs::rename(copy, cache.path()).unwrap();
        }),
        ("of another version", |cache| {
            fs::write(cache.path(), "").unwrap();
        }),
        ("of another version", |cache| {
            fs::write(cache.path(), "{}\n").unwrap();
        }),
        ("No such file", |cache| {
            fs::remove_file(cache.path()).unwrap()
        }),
    ];
    for (reason, spoil) in spoil {
        let cache = Cache::new();
        let record = cache.bind();
        let path = cache.store(&name("a"));
        record.note(&name("a"), &entry(1)).unwrap();
        drop(record);
        spoil(&cache);
        let error = Record::open(&cache.path()).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
        // While it is in use it stays, and is not relied on.
        let was_there = cache.path().exists();
        let record = cache.take_over();
        let carried = record.get(&name("a")).unwrap();
        let expected = match was_there {
            true => Carried::Lost,
            false => Carried::Old,
        };
        assert_eq!(carried, (None, Some(expected)));
        record.note(&name("a"), &entry(1)).unwrap();
        drop(record);
        assert!(path.exists());
        assert_eq!(cache.take_over().get(&name("a")).unwrap().1, Some(expected));
        let record = cache.bind();
        assert_eq!(record.get(&name("a")).unwrap(), (None, None));
        assert!(!path.exists(), "{reason}");
        let graves = fs::read_dir(cache.root.path().join("graveyard")).unwrap();
        assert_eq!(graves.count(), 1);
    }
}

#[test]
fn a_line_that_cannot_be_written_is_not_there() {
    let full = File::options().read(true).write(true).open("/dev/full");
    let record = Record {
        file: full.unwrap(),
        inner: Mutex::default(),
    };
    assert!(record.note(&name("a"), &entry(1)).is_err());
    // It has no length to go back to.
    assert!(record.get(&name("a")).is_err());
}

#[test]
fn one_keeper_has_a_cache() {
    let cache = Cache::new();
    assert!(Claim::new(cache.root.path()).unwrap().is_none());
    let Cache { root, claim } = cache;
    drop(claim);
    assert!(Claim::new(root.path()).unwrap().is_some());
}
