// SPDX-License-Identifier: MIT OR Apache-2.0

//! The thread with a store and no kernel: what does not take `cull`.

use std::fs;

use rustix::event::poll;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::net::AddressFamily;
use rustix::net::SocketFlags;
use rustix::net::SocketType;

use super::*;
use crate::record::begin::for_bind;
use crate::record::begin::Claim;

fn desk(root: &Path) -> (Desk, mpsc::Receiver<(ClientId, Answer)>, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (device, kernel) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let claim = Claim::new(root).unwrap().unwrap();
    for_bind(&claim, root).unwrap();
    let (tell, done) = mpsc::channel();
    let desk = Desk {
        // SAFETY: No OPEN is sent with descriptors.
        device: unsafe { Device::from_owned_fd_unchecked(device) },
        store: Store::open(root).unwrap(),
        record: root.join(FILE),
        reusable: true,
        done: tell,
        bell: Arc::new(rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap()),
    };
    (desk, done, kernel)
}

fn targets(all: bool) -> Targets {
    Targets {
        volume: "erofs,v".into(),
        keys: vec!["image".into()],
        all,
        forget: true,
    }
}

#[test]
fn what_is_stored_is_culled_in_its_directory() {
    let root = tempfile::tempdir().unwrap();
    let (desk, _done, kernel) = desk(root.path());
    let none = desk.evict(&targets(true)).unwrap();
    assert_eq!(none.missing, ["image"]);
    assert_eq!(none.objects, 0);
    // The names that are not keys are found by looking.
    for key in ["image", "blob"] {
        let place = Name::of(b"erofs,v", key.as_bytes()).place().unwrap();
        let dir = root.path().join("cache").join(&*place.volume);
        let dir = dir.join(&*place.fanout);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(&place.name), [1; 4096]).unwrap();
    }
    let evicted = thread::spawn(move || {
        cull::own_working_directory().unwrap();
        desk.evict(&targets(true)).unwrap()
    });
    let evicted = evicted.join().unwrap();
    assert_eq!((evicted.objects, evicted.in_use.len()), (2, 0));
    assert!(evicted.bytes >= 8192, "{evicted:?}");
    let mut commands = Vec::new();
    let mut line = [0; 4096];
    while let Ok(len) = rustix::io::read(&kernel, &mut line) {
        commands.push(String::from_utf8(line[..len].to_vec()).unwrap());
        if len == 0 {
            break;
        }
    }
    assert!(
        commands.iter().any(|it| it == "inuse Dimage"),
        "{commands:?}"
    );
    assert!(commands.iter().any(|it| it == "cull Dblob"), "{commands:?}");
}

#[test]
fn no_name_leads_out_of_the_store() {
    let root = tempfile::tempdir().unwrap();
    let (desk, ..) = desk(root.path());
    fs::create_dir_all(root.path().join("cache")).unwrap();
    for name in [
        "",
        "x",
        "Ia/@00",
        "Ia/../Dx",
        "../a/b",
        "Ia/@00/D/x",
        "I/@00/%00",
        "Ia/@00/..",
    ] {
        let error = desk.make_stale(name).unwrap_err();
        assert_eq!(error, "no name of an object", "{name}");
    }
    desk.make_stale("Ia/@00/Dx").unwrap();
}

#[test]
fn a_worker_and_a_client_are_answered() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("cache")).unwrap();
    let (desk, done, _kernel) = desk(root.path());
    let (ours, theirs) = Channel::pair().unwrap();
    desk.work(Job::MakeStale {
        channel: ours.duplicate().unwrap(),
        number: 7,
        name: "Ia/@00/Dx".into(),
    });
    let within = std::time::Duration::from_secs(5);
    let answer = theirs.receive_done(within).unwrap();
    assert_eq!((answer.number, answer.failed), (7, None));
    desk.work(Job::MakeStale {
        channel: ours,
        number: 8,
        name: "elsewhere".into(),
    });
    let answer = theirs.receive_done(within).unwrap();
    assert_eq!(answer.number, 8);
    assert!(answer.failed.is_some());

    let bell = Arc::clone(&desk.bell);
    let mut fds = [PollFd::new(&*bell, PollFlags::IN)];
    let now = rustix::event::Timespec::default();
    assert_eq!(poll(&mut fds, Some(&now)).unwrap(), 0);
    let (jobs, _taken) = mpsc::channel();
    let clerk = Clerk {
        jobs,
        done,
        bell: Arc::clone(&bell),
    };
    desk.done
        .send((ClientId::default(), Answer::error("no")))
        .unwrap();
    rustix::io::write(&*bell, &1_u64.to_ne_bytes()).unwrap();
    assert_eq!(poll(&mut fds, Some(&now)).unwrap(), 1);
    assert!(clerk.take_done().is_some());
    assert!(clerk.take_done().is_none());
    assert_eq!(poll(&mut fds, Some(&now)).unwrap(), 0, "it is quiet again");
}
