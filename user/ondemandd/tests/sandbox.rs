// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a process in the worker's sandbox can do, and what not.
//!
//! Each test starts this program once more, as a child that enters a sandbox and then tries things; who is
//! not root, or has a kernel without Landlock, skips them.

#[path = "support/hostile.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod hostile;

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use hostile::blob;
use hostile::well;
use hostile::Hostile;
use ondemandd::config::source::SourceConfig;
use ondemandd::counters::Counters;
use ondemandd::record::begin::for_bind;
use ondemandd::record::begin::Claim;
use ondemandd::record::Entry;
use ondemandd::record::Name;
use ondemandd::record::Record;
use ondemandd::record::FILE;
use ondemandd::sandbox::user::Identity;
use ondemandd::sandbox::Sandbox;
use ondemandd::source::names::PreparedSources;
use ondemandd::source::names::SourceList;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::SocketType;
use rustix::thread::CapabilitySet;

const NOBODY: &str = "65534:65534";

/// Runs the child below in a sandbox; `dir` has `blob` and `secret` in it.
fn run_child(what: &str, user: &str, url: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    // Nobody but root gets here by name.
    let dir = root.path().join("source");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("blob"), "0123").unwrap();
    fs::write(root.path().join("secret"), "hush").unwrap();
    for (path, mode) in [("", 0o777), ("blob", 0o666)] {
        fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .args(["--test-threads", "1"])
        .env("SANDBOX_WHAT", what)
        .env("SANDBOX_USER", user)
        .env("SANDBOX_DIR", &dir)
        .env("SANDBOX_URL", url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} as {user}: {text}");
    assert!(
        text.contains("all tried") || text.contains("skipped"),
        "{text}"
    );
}

#[test]
fn a_worker_of_directories_can_read_them_and_nothing_else() {
    run_child("files", NOBODY, "");
    run_child("calls", NOBODY, "");
}

#[test]
fn root_is_held_to_the_same() {
    run_child("files", "0:0", "");
    run_child("calls", "0:0", "");
}

#[test]
fn a_worker_of_remote_sources_has_the_network() {
    let server = Hostile::start(|asked, stream| well(asked, stream, &blob(9000), "\"e\""));
    // So that a name is looked up.
    let url = server.url().replace("127.0.0.1", "localhost");
    run_child("network", NOBODY, &url);
    run_child("network", "0:0", &url);
}

/// What a test above has this program started for.
#[test]
#[ignore = "is the child of other tests"]
fn child() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let dir = variable("SANDBOX_DIR");
    let identity: Identity = match variable("SANDBOX_USER").parse() {
        Ok(identity) => identity,
        Err(_) => return,
    };
    let trial = Trial {
        dir: open_dir(&dir),
        identity,
    };
    let done = match variable("SANDBOX_WHAT").as_str() {
        "files" => trial.files(Path::new(&dir)),
        "calls" => trial.calls(),
        _ => trial.network(&variable("SANDBOX_URL")),
    };
    println!("{}", if done { "all tried" } else { "skipped" });
}

/// The record of a new cache.
fn new_record(cache: &Path) -> PathBuf {
    let claim = Claim::new(cache).unwrap().unwrap();
    for_bind(&claim, cache).unwrap();
    cache.join(FILE)
}

fn open_dir(path: &str) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

fn is_denied(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::ACCESS | Errno::PERM)
    )
}

#[track_caller]
fn denied<T>(result: io::Result<T>) {
    match result {
        Ok(_) => panic!("allowed"),
        Err(error) => assert!(is_denied(&error), "{error}"),
    }
}

/// A system call that no crate here makes; all of them fail, and none of them reads or writes memory.
fn call(number: libc::c_long, arguments: [libc::c_long; 4]) -> io::Result<()> {
    let [a, b, c, d] = arguments;
    // SAFETY: No argument is an address but 0.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

struct Trial {
    dir: OwnedFd,
    identity: Identity,
}

impl Trial {
    /// Enters the sandbox; `false` if this kernel cannot.
    fn enter(&self, network: bool) -> bool {
        let sandbox = Sandbox {
            required: true,
            identity: &self.identity,
            sources: vec![self.dir.as_fd()],
            network,
        };
        match sandbox.enter() {
            Ok(()) => true,
            Err(error) => {
                let text = format!("{error:#}");
                assert!(text.contains("this kernel has none"), "{text}");
                false
            }
        }
    }

    fn open(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&self.dir, name, flags | OFlags::CLOEXEC, mode)?;
        Ok(file.into())
    }

    fn files(&self, dir: &Path) -> bool {
        let mut open_before = tempfile::tempfile().unwrap();
        let cache = dir.with_file_name("cache");
        fs::create_dir(&cache).unwrap();
        let record_path = new_record(&cache);
        let record = Record::open(&record_path).unwrap();
        // Half a line, which has to be cut off.
        let mut half = File::options().append(true).open(&record_path).unwrap();
        half.write_all(b"0123456789abcdef vers").unwrap();
        let name = Name::of(b"erofs,v", b"image");
        let entry = Entry {
            token: cachefiles_proto::Token::new(&[1]).unwrap(),
            size: 1,
            sole: true,
            manifest: false,
            what: "it".into(),
            changed: None,
        };
        if !self.enter(false) {
            return false;
        }
        // A worker adds to it, and cannot do anything else with it.
        record.note(&name, &entry).unwrap();
        assert_eq!(record.get(&name).unwrap().0, Some(entry));
        denied(File::open(&record_path));
        denied(fs::remove_file(&record_path));
        let text = io::read_to_string(self.open("blob", OFlags::RDONLY).unwrap());
        assert_eq!(text.unwrap(), "0123");
        self.open(".", OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        open_before.write_all(b"what is open stays open").unwrap();
        let missing = self.open("none", OFlags::RDONLY).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);

        // Their modes would allow it.
        denied(self.open("blob", OFlags::WRONLY));
        denied(self.open("blob", OFlags::RDONLY | OFlags::TRUNC));
        denied(self.open("new", OFlags::WRONLY | OFlags::CREATE));
        denied(
            rustix::fs::unlinkat(&self.dir, "blob", rustix::fs::AtFlags::empty())
                .map_err(Into::into),
        );
        denied(rustix::fs::renameat(&self.dir, "blob", &self.dir, "b").map_err(Into::into));
        denied(
            rustix::fs::chmodat(&self.dir, "blob", Mode::RUSR, rustix::fs::AtFlags::empty())
                .map_err(Into::into),
        );
        denied(self.open("../secret", OFlags::RDONLY));
        denied(File::open(dir.with_file_name("secret")));
        denied(File::open("/etc/shadow"));
        denied(File::open("/etc/passwd"));
        denied(fs::read_dir("/proc/1/fd"));
        denied(File::create("/tmp/ondemandd-sandbox-test"));
        // A thread that is started later has no more.
        thread::scope(|scope| {
            scope.spawn(|| denied(File::open("/etc/passwd")));
        });
        true
    }

    fn calls(&self) -> bool {
        if !self.enter(false) {
            return false;
        }
        let none = CapabilitySet::empty();
        let sets = rustix::thread::capabilities(None).unwrap();
        assert_eq!(
            (sets.effective, sets.permitted, sets.inheritable),
            (none, none, none)
        );
        let bounding = (0..40).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
        assert!(bounding
            .into_iter()
            .all(|it| !rustix::thread::capability_is_in_bounding_set(it).unwrap_or(false)));
        assert!(rustix::thread::no_new_privs().unwrap());

        let parent = libc::c_long::from(
            rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get()),
        );
        let root = rustix::process::Uid::ROOT;
        denied(rustix::thread::set_thread_res_uid(root, root, root).map_err(Into::into));
        denied(Command::new("/bin/true").status());
        denied(call(
            libc::SYS_ptrace,
            [i64::from(libc::PTRACE_ATTACH), parent, 0, 0],
        ));
        denied(call(libc::SYS_kill, [parent, 0, 0, 0]));
        denied(call(
            libc::SYS_unshare,
            [i64::from(libc::CLONE_NEWUSER), 0, 0, 0],
        ));
        denied(call(libc::SYS_io_uring_setup, [1, 0, 0, 0]));
        denied(call(libc::SYS_bpf, [0, 0, 0, 0]));
        denied(call(libc::SYS_mount, [0, 0, 0, 0]));
        // fchmodat2, which would say EFAULT.
        denied(call(452, [0, 0, 0, 0]));
        denied(call(
            libc::SYS_clone,
            [i64::from(libc::CLONE_NEWUSER), 0, 0, 0],
        ));
        let unknown = call(libc::SYS_clone3, [0, 0, 0, 0]).unwrap_err();
        assert_eq!(unknown.raw_os_error(), Some(libc::ENOSYS));
        if cfg!(target_arch = "x86_64") {
            // getpid by its other number.
            denied(call(libc::SYS_getpid | 0x4000_0000, [0, 0, 0, 0]));
        }
        for domain in [
            AddressFamily::INET,
            AddressFamily::UNIX,
            AddressFamily::PACKET,
        ] {
            denied(rustix::net::socket(domain, SocketType::DGRAM, None).map_err(Into::into));
        }
        true
    }

    fn network(&self, url: &str) -> bool {
        let json = format!(r#"{{"kind":"http","url":"{url}"}}"#);
        let list = SourceList {
            default: Some(serde_json::from_str::<SourceConfig>(&json).unwrap()),
            named: Vec::new(),
        };
        let counters = Arc::new(Counters::create().unwrap());
        let prepared = PreparedSources::open(&list, &counters).unwrap();
        assert!(prepared.has_remote());
        if !self.enter(true) {
            return false;
        }
        let sources = prepared.start().unwrap();
        let (_, source, key) = sources.find(b"image").unwrap();
        let remote = source.lookup(key).unwrap();
        let mut part = vec![0; 4096];
        remote.read_at(&mut part, 4096).unwrap();
        assert!(part == blob(9000)[4096..8192]);

        UdpSocket::bind("127.0.0.1:0").unwrap();
        denied(TcpListener::bind("127.0.0.1:0"));
        denied(File::open("/etc/shadow"));
        for domain in [AddressFamily::PACKET, AddressFamily::VSOCK] {
            denied(rustix::net::socket(domain, SocketType::DGRAM, None).map_err(Into::into));
        }
        // The keeper's control socket answers root.
        let unix = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None);
        match self.identity.is_root() {
            true => denied(unix.map_err(Into::into)),
            false => drop(unix.unwrap()),
        }
        true
    }
}

/// The whole of a worker's start, up to a device that nothing can be read from.
#[test]
fn a_worker_starts_in_its_sandbox() {
    use ondemandd::handover::Begin;
    use ondemandd::handover::Channel;
    use std::process::Stdio;

    let device = File::options().read(true).write(true).open("/dev/fuse");
    let (Ok(device), true) = (device, rustix::process::geteuid().is_root()) else {
        eprintln!("skipped: no /dev/fuse");
        return;
    };
    let (ours, theirs) = Channel::pair().unwrap();
    let counters = Counters::create().unwrap();
    ours.send_device(device.as_fd(), counters.as_fd(), Begin::First)
        .unwrap();
    let cache = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ondemandd"))
        .args(["worker", "--threads=2", "--source=/usr", "--as", NOBODY])
        .arg("--record")
        .arg(new_record(cache.path()))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    // This device reports an error at once, as that of a dead cache does.
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.contains("worker serves"), "{log}");
    assert!(log.contains("user=\"65534:65534\""), "{log}");
}
