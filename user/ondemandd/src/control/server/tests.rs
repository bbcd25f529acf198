// SPDX-License-Identifier: MIT OR Apache-2.0

//! The socket as its clients see it, the bad ones among them.

use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::event::Timespec;

use super::super::client;
use super::*;
use crate::clients::CLIENT_WITHIN;
use crate::clients::MOST_CLIENTS;
use crate::counters::count;
use crate::counters::Counters;
use crate::rundir;

/// The deadline of what happens at once, on this machine.
fn soon() -> Duration {
    ondemand_deadline::scaled(Duration::from_secs(20))
}

/// A keeper that does nothing but answer, for as long as the process lives.
struct Keeper {
    run_dir: tempfile::TempDir,
    counters: Arc<Counters>,
}

impl Keeper {
    fn start(within: Duration) -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let listener = ControlListener::bind(&run_dir.path().join(rundir::CONTROL)).unwrap();
        let counters = Arc::new(Counters::create().unwrap());
        let reporter = Arc::new(Reporter::new("/cache".into(), Arc::clone(&counters)));
        let mut control = Control::new(listener, reporter, None, within);
        thread::spawn(move || loop {
            let ready: Vec<bool> = {
                let mut fds = control.poll_fds();
                let left = control.deadline();
                let left = left.map(|by| by.saturating_duration_since(Instant::now()));
                let timeout = left.map(|left| Timespec::try_from(left).unwrap());
                rustix::event::poll(&mut fds, timeout.as_ref()).unwrap();
                fds.iter().map(|fd| !fd.revents().is_empty()).collect()
            };
            control.go_on(&ready);
        });
        Keeper { run_dir, counters }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.run_dir.path().join(rundir::CONTROL)).unwrap();
        stream.set_read_timeout(Some(soon())).unwrap();
        stream.set_write_timeout(Some(soon())).unwrap();
        stream
    }

    fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn the_numbers_of_this_moment_are_told() {
    let keeper = Keeper::start(CLIENT_WITHIN);
    count(&keeper.counters.reads, 5);
    let report = client::stats(keeper.run_dir.path(), soon())
        .unwrap()
        .unwrap();
    assert_eq!(
        (report.counters.reads, report.keeper_pid),
        (5, std::process::id())
    );
    count(&keeper.counters.reads, 1);
    let answer = keeper.ask(b"{\"request\":\"stats\"}\n");
    assert!(
        answer.contains("\"reads\":6") && answer.ends_with("}\n"),
        "{answer}"
    );
}

#[test]
fn other_requests_get_an_error() {
    let keeper = Keeper::start(CLIENT_WITHIN);
    let long = vec![b'x'; LONGEST_REQUEST + 1];
    for (request, reason) in [
        (&b"\n"[..], "no request"),
        (b"stats\n", "no request"),
        (b"{\"request\":\"halt\"}\n", "halt"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "no request"),
        (b"\xff\0\n", "no request"),
        (&long, "longer than"),
    ] {
        let answer = keeper.ask(request);
        let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(value["answer"], "error", "{answer}");
        let error = value["error"].as_str().unwrap();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn a_client_that_says_nothing_holds_up_nobody_and_is_given_up() {
    // Who asks has as long, which must be enough for this process to ask.
    let keeper = Keeper::start(soon() / 20);
    let mut silent = keeper.connect();
    let mut half = keeper.connect();
    half.write_all(b"{\"request\":").unwrap();
    // It asks and never reads.
    let mut deaf = keeper.connect();
    deaf.write_all(b"{\"request\":\"stats\"}\n").unwrap();
    client::stats(keeper.run_dir.path(), soon())
        .unwrap()
        .unwrap();
    for stream in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        // Reset where it has said something that nobody has read.
        if stream.read_to_end(&mut rest).is_ok() {
            assert!(rest.is_empty());
        }
    }
    client::stats(keeper.run_dir.path(), soon())
        .unwrap()
        .unwrap();
}

#[test]
fn many_silent_clients_do_not_keep_others_out() {
    // No deadline helps here.
    let keeper = Keeper::start(soon() * 10);
    let mut silent: Vec<UnixStream> = (0..=MOST_CLIENTS).map(|_| keeper.connect()).collect();
    client::stats(keeper.run_dir.path(), soon())
        .unwrap()
        .unwrap();
    // The first one had to go.
    assert_eq!(silent[0].read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn only_root_and_the_owner_may_ask() {
    let uid = Uid::from_raw;
    assert!(may_ask(uid(0), uid(7)) && may_ask(uid(7), uid(7)));
    assert!(!may_ask(uid(8), uid(7)) && !may_ask(uid(7), uid(0)));

    let keeper = Keeper::start(CLIENT_WITHIN);
    let path = keeper.run_dir.path().join(rundir::CONTROL);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, SOCKET_MODE);
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: nobody else can be played");
        return;
    }
    // Whoever has got past the modes.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(keeper.run_dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let asked = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let nobody = uid(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            client::stats(keeper.run_dir.path(), soon())
        });
        other.join().unwrap()
    });
    let error = format!("{:#}", asked.unwrap_err());
    assert!(error.contains("user 65534 may not ask"), "{error}");
}

#[test]
fn nobody_there_is_no_error_and_silence_is() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(client::stats(root.path(), soon()).unwrap(), None);
    // What a keeper that was killed leaves.
    let path = root.path().join(rundir::CONTROL);
    drop(ControlListener::bind(&path).unwrap());
    assert_eq!(client::stats(root.path(), soon()).unwrap(), None);

    let error = ControlListener::bind(&path).unwrap_err();
    assert!(format!("{error:#}").contains("--run-dir"), "{error:#}");
    let long = root.path().join("x".repeat(120));
    assert!(ControlListener::bind(&long).is_err());

    fs::remove_file(&path).unwrap();
    let _mute = ControlListener::bind(&path).unwrap();
    let request = Request::Stats;
    let error = client::ask(root.path(), &request, Duration::from_millis(100)).unwrap_err();
    assert!(
        format!("{error:#}").contains("does not answer"),
        "{error:#}"
    );
}
