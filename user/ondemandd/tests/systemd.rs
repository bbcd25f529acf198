// SPDX-License-Identifier: MIT OR Apache-2.0

//! A keeper that systemd has started, with a socket of the test in systemd's place.
//!
//! No kernel module is needed: the device is another misc device, which refuses every command, and a worker
//! that gets along with it is a shell script that takes the program's place, as a new version would.

use std::fs;
use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use ondemandd::systemd;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::process::Pid;
use rustix::process::Signal;

/// The deadline of what happens at once, on this machine.
fn soon() -> Duration {
    ondemand_deadline::scaled(Duration::from_secs(30))
}

/// A misc device that is nearly everywhere. It reports an error to whoever waits for it, so that the thread
/// that culls ends at once.
const DEVICE: &str = "/dev/fuse";

/// Takes what the keeper sends and says that it serves; what it does then is added.
const WORKER: &str = "#!/bin/sh\ndd bs=8 count=1 >/dev/null 2>&1\n\
                      printf 'ONDD\\000\\001\\001\\000' >&0\n";

/// The socket that a keeper tells how it goes.
struct Manager {
    socket: UnixDatagram,
    root: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        // Where a link to the program can be.
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let socket = UnixDatagram::bind(root.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(soon())).unwrap();
        Manager { socket, root }
    }

    /// The next message, as lines, and what came with it.
    fn receive(&self) -> (Vec<String>, Vec<OwnedFd>) {
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let len = received.expect("the keeper says something").bytes;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let text = String::from_utf8(text[..len].to_vec()).unwrap();
        (text.lines().map(str::to_owned).collect(), fds)
    }

    /// Waits for a message with a line that begins so; returns all lines until then.
    fn wait_for(&self, line: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let (more, fds) = self.receive();
            assert!(fds.is_empty(), "only a device that is new is stored");
            lines.extend(more);
            if lines.iter().any(|it| it.starts_with(line)) {
                return lines;
            }
        }
    }

    /// Starts a keeper with `device` as the descriptor 3 that systemd has kept.
    fn start(&self, device: &str, variables: &[(&str, &str)]) -> Keeper {
        let root = self.root.path();
        let program = root.join("ondemandd");
        // No copy: a file that was written here cannot be run while another test's child, which is between
        // fork and exec, has it open as well.
        fs::hard_link(env!("CARGO_BIN_EXE_ondemandd"), &program).unwrap();
        fs::create_dir_all(root.join("cache")).unwrap();
        // The number of its process is known only to the process itself.
        let script = "exec 3<>\"$0\"; LISTEN_PID=$$ exec \"$@\"";
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script, device])
            .arg(&program)
            .args(["serve", "--source=/", "--cache"])
            .arg(root.join("cache"))
            .arg("--run-dir")
            .arg(root.join("run"))
            .env("NOTIFY_SOCKET", root.join("notify"))
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", systemd::FD_NAME)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(File::create(root.join("log")).unwrap());
        Keeper {
            process: command.spawn().unwrap(),
        }
    }

    /// Puts a script in the place of the program, which must run by now: a later worker is that.
    fn replace_worker(&self, then: &str) {
        let root = self.root.path();
        fs::write(root.join("new"), format!("{WORKER}{then}\n")).unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(root.join("new"), mode).unwrap();
        fs::rename(root.join("new"), root.join("ondemandd")).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("log")).unwrap()
    }
}

/// A keeper, which does not outlive the test.
struct Keeper {
    process: Child,
}

impl Keeper {
    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn has_device() -> bool {
    let there = File::options().read(true).write(true).open(DEVICE).is_ok();
    if !there {
        eprintln!("skipped: {DEVICE} cannot be opened");
    }
    there
}

#[test]
fn a_kept_device_is_gone_on_with_and_stays_kept() {
    if !has_device() {
        return;
    }
    let manager = Manager::new();
    let mut keeper = manager.start(DEVICE, &[("WATCHDOG_USEC", "200000")]);
    manager.wait_for("WATCHDOG=1");
    manager.replace_worker("exec sleep 3600");
    let lines = manager.wait_for("READY=1");
    assert!(!lines.iter().any(|line| line.starts_with("FDSTORE")));
    let log = manager.log();
    assert!(log.contains("device taken over"), "{log}");
    let run = manager.root.path().join("run");
    let told = fs::read_to_string(run.join("worker.pid")).unwrap();
    let environment = fs::read(format!("/proc/{}/environ", told.trim())).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    for variable in systemd::VARIABLES {
        assert!(!environment.contains(variable), "{variable}: {environment}");
    }
    assert_eq!(holders_of(told.trim()), 0, "not by inheritance");

    keeper.signal(Signal::TERM);
    let lines = manager.wait_for("STATUS=the keeper ends");
    assert!(lines.iter().any(|line| line == "STOPPING=1"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("FDSTORE")));
    assert_eq!(keeper.end().code(), Some(0), "{}", manager.log());
}

/// How many descriptors of the process are the device.
fn holders_of(pid: &str) -> usize {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = fds.flatten().map(|fd| fs::read_link(fd.path()));
    links.flatten().filter(|it| it == Path::new(DEVICE)).count()
}

#[test]
fn the_device_of_a_dead_cache_is_given_back() {
    if !has_device() {
        return;
    }
    let manager = Manager::new();
    let mut keeper = manager.start(DEVICE, &[]);
    // The device refuses `restore`.
    manager.wait_for("STATUS=worker ");
    manager.replace_worker("exit 3");
    let lines = manager.wait_for("FDSTOREREMOVE=1");
    assert!(lines.contains(&"READY=1".to_owned()), "{lines:?}");
    assert!(lines.contains(&format!("FDNAME={}", systemd::FD_NAME)));
    assert_eq!(keeper.end().code(), Some(3), "{}", manager.log());
}

#[test]
fn another_cache_is_not_gone_on_with() {
    if !has_device() {
        return;
    }
    let manager = Manager::new();
    let run = manager.root.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("cache.path"), "/somewhere/else\n").unwrap();
    let mut keeper = manager.start(DEVICE, &[]);
    assert_eq!(keeper.end().code(), Some(1));
    let log = manager.log();
    assert!(log.contains("/somewhere/else"), "{log}");
}

#[test]
fn what_is_no_device_is_refused() {
    let manager = Manager::new();
    let mut keeper = manager.start("/dev/null", &[]);
    assert_eq!(keeper.end().code(), Some(1));
    let log = manager.log();
    assert!(log.contains("systemd has kept is not the device"), "{log}");
}

#[test]
fn other_descriptors_are_not_the_device() {
    let manager = Manager::new();
    // So it opens a device by itself, and finds none.
    let mut keeper = manager.start("/dev/null", &[("LISTEN_FDNAMES", "http")]);
    assert_eq!(keeper.end().code(), Some(1));
    let log = manager.log();
    assert!(log.contains("/dev/cachefiles"), "{log}");
}

/// The one test that sets a variable of this process, and the only one that reads it.
#[test]
fn a_device_is_stored_once_and_by_its_name() {
    let manager = Manager::new();
    std::env::set_var("NOTIFY_SOCKET", manager.root.path().join("notify"));
    let file = tempfile::tempfile().unwrap();
    systemd::store(file.as_fd());
    systemd::tell_ready("worker 1 serves");

    let (lines, fds) = manager.receive();
    assert_eq!(lines, ["FDSTOREREMOVE=1", "FDNAME=cachefiles"]);
    assert!(fds.is_empty());
    let (lines, fds) = manager.receive();
    assert_eq!(lines, ["FDSTORE=1", "FDNAME=cachefiles", "FDPOLL=0"]);
    let [stored] = <[OwnedFd; 1]>::try_from(fds).unwrap();
    let stored = File::from(stored).metadata().unwrap();
    assert_eq!(stored.ino(), file.metadata().unwrap().ino());
    let (lines, _) = manager.receive();
    assert_eq!(lines, ["READY=1", "STATUS=worker 1 serves"]);
}
