// SPDX-License-Identifier: MIT OR Apache-2.0

//! A pass over a store in a temporary directory, with a kernel that removes files by itself.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::fs::FileTimes;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::AtFlags;
use tempfile::TempDir;

use super::*;

/// A store, and the kernel that keeps it.
struct Bench {
    dir: TempDir,
    store: Store,
    in_use: HashSet<String>,
    /// Names of what has gone, in order.
    gone: RefCell<Vec<String>>,
    /// Culling is wanted until so many bytes are freed.
    wanted: u64,
}

/// The bytes of each object.
const SIZE: u64 = 8192;

impl Bench {
    fn new(wanted: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cache")).unwrap();
        fs::create_dir(dir.path().join("graveyard")).unwrap();
        Bench {
            store: Store::open(dir.path()).unwrap(),
            dir,
            in_use: HashSet::new(),
            gone: RefCell::default(),
            wanted,
        }
    }

    fn path(&self, place: &str) -> PathBuf {
        self.dir.path().join("cache").join(place)
    }

    /// An object that was last used so many seconds after 1970.
    fn object(&self, place: &str, used: u64) {
        let path = self.path(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![1; usize::try_from(SIZE).unwrap()]).unwrap();
        set_times(&path, used);
    }

    fn run(&self, batch: usize) -> Freed {
        run(&self.store, self, &mut Queue::new(batch)).unwrap()
    }

    fn gone(&self) -> Vec<String> {
        self.gone.borrow().clone()
    }
}

fn set_times(path: &PathBuf, used: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(used);
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    File::open(path).unwrap().set_times(times).unwrap();
}

impl Kernel for Bench {
    fn wants_more(&self, freed: &Freed) -> anyhow::Result<bool> {
        Ok(freed.bytes < self.wanted)
    }

    fn cull(&self, dir: BorrowedFd<'_>, name: &OsStr) -> anyhow::Result<Verdict> {
        let text = name.to_str().unwrap().to_owned();
        if self.in_use.contains(&text) {
            return Ok(Verdict::InUse);
        }
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if stat.st_mode & 0o170_000 == 0o040_000 {
            let grave = format!("graveyard/{}", self.gone.borrow().len());
            let grave = self.dir.path().join(grave);
            rustix::fs::renameat(dir, name, rustix::fs::CWD, grave)?;
        } else {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        }
        self.gone.borrow_mut().push(text);
        Ok(Verdict::Culled)
    }
}

#[test]
fn the_oldest_go_and_no_more_than_needed() {
    let bench = Bench::new(2 * SIZE);
    bench.object("Ia/@00/Dyoung", 3000);
    bench.object("Ib/@07/Dmiddle", 2000);
    bench.object("Ia/@ff/Dold", 1000);
    let freed = bench.run(BATCH);
    assert_eq!(bench.gone(), ["Dold", "Dmiddle", "Ib"]);
    assert_eq!(freed.objects, 2);
    assert_eq!(freed.volumes, 1, "the one that became empty");
    assert_eq!(freed.files, 2 + 2);
    assert!(freed.bytes >= 2 * SIZE, "{freed:?}");
}

#[test]
fn what_is_in_use_stays_however_old_and_many() {
    let mut bench = Bench::new(u64::MAX);
    for n in 0..10 {
        let name = format!("Dused{n}");
        bench.object(&format!("Ia/@0{n}/{name}"), n);
        bench.in_use.insert(name);
    }
    bench.object("Ia/@00/Didle", 50);
    bench.object("Ia/@00/Dlater", 60);
    // Batches that are used up by objects in use do not hide those that come after.
    let freed = bench.run(3);
    assert_eq!(bench.gone(), ["Didle", "Dlater"]);
    assert_eq!((freed.objects, freed.failed), (2, 0));
    assert!(bench.path("Ia/@09/Dused9").exists());
    assert!(!bench.run(3).is_something());
}

#[test]
fn the_next_pass_goes_on_without_a_walk() {
    let mut bench = Bench::new(1);
    for n in 0..3 {
        bench.object(&format!("Ia/@00/D{n}"), 10 + n);
    }
    bench.object("Ib/@00/Dkept", 99);
    let mut queue = Queue::new(3);
    run(&bench.store, &bench, &mut queue).unwrap();
    assert_eq!(bench.gone(), ["D0"]);
    // What came later waits for the next walk, and so does what is in use by then.
    bench.object("Ia/@00/Dnew", 5);
    bench.in_use.insert("D1".into());
    run(&bench.store, &bench, &mut queue).unwrap();
    assert_eq!(bench.gone(), ["D0", "D2"]);
    bench.in_use.clear();
    run(&bench.store, &bench, &mut queue).unwrap();
    assert_eq!(bench.gone(), ["D0", "D2", "Dnew"]);
}

#[test]
fn an_empty_volume_goes_before_any_object() {
    let bench = Bench::new(1);
    bench.object("Ia/@00/Dold", 1);
    for fanout in ["@00", "@01"] {
        fs::create_dir_all(bench.path("Iempty").join(fanout)).unwrap();
    }
    let freed = bench.run(BATCH);
    assert_eq!(freed.volumes, 1);
    assert_eq!(freed.files, 3, "the directories");
    assert!(!bench.path("Iempty").exists());
    assert_eq!(
        fs::read_dir(bench.dir.path().join("graveyard"))
            .unwrap()
            .count(),
        0
    );
    // Whether directories take bytes depends on the file system: the object may have to go, too.
    assert_eq!(bench.gone()[0], "Iempty");
}

#[test]
fn a_volume_in_use_stays_though_nothing_is_in_it() {
    let mut bench = Bench::new(u64::MAX);
    fs::create_dir_all(bench.path("Ifresh/@00")).unwrap();
    bench.in_use.insert("Ifresh".into());
    assert_eq!(bench.run(BATCH), Freed::default());
    assert!(bench.path("Ifresh/@00").exists());
}

#[test]
fn graves_go_first_and_may_be_enough() {
    let bench = Bench::new(1);
    bench.object("Ia/@00/Dkept", 1);
    let grave = bench.dir.path().join("graveyard/00000001/@00");
    fs::create_dir_all(&grave).unwrap();
    fs::write(grave.join("Dx"), [1; 8192]).unwrap();
    let freed = bench.run(BATCH);
    assert_eq!((freed.objects, freed.files), (0, 3));
    assert!(bench.path("Ia/@00/Dkept").exists());
}

/// A kernel whose first answer comes after somebody has used the other object.
struct Busy<'a>(&'a Bench);

impl Kernel for Busy<'_> {
    fn wants_more(&self, freed: &Freed) -> anyhow::Result<bool> {
        self.0.wants_more(freed)
    }

    fn cull(&self, dir: BorrowedFd<'_>, name: &OsStr) -> anyhow::Result<Verdict> {
        set_times(&self.0.path("Ia/@00/Dsecond"), 9000);
        self.0.cull(dir, name)
    }
}

#[test]
fn what_was_used_since_the_walk_is_looked_at_again() {
    let bench = Bench::new(2 * SIZE);
    bench.object("Ia/@00/Dfirst", 1);
    bench.object("Ia/@00/Dsecond", 2);
    bench.object("Ia/@00/Dthird", 3);
    run(&bench.store, &Busy(&bench), &mut Queue::new(BATCH)).unwrap();
    assert_eq!(bench.gone(), ["Dfirst", "Dthird"]);
}

#[test]
fn a_failure_is_counted_and_passed_over() {
    struct Refusing;
    impl Kernel for Refusing {
        fn wants_more(&self, _: &Freed) -> anyhow::Result<bool> {
            Ok(true)
        }
        fn cull(&self, _: BorrowedFd<'_>, _: &OsStr) -> anyhow::Result<Verdict> {
            Ok(Verdict::Failed(Some(Errno::IO)))
        }
    }
    let bench = Bench::new(0);
    bench.object("Ia/@00/Da", 1);
    bench.object("Ia/@00/Db", 2);
    let freed = run(&bench.store, &Refusing, &mut Queue::new(1)).unwrap();
    assert_eq!((freed.failed, freed.is_something()), (2, false));
}
