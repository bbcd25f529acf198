// SPDX-License-Identifier: MIT OR Apache-2.0

//! A keeper that is upgraded, with a worker that is a shell script: no kernel module is needed.
//!
//! The device is another misc device, which refuses every command. The script takes the program's place, as a
//! new version would, and the keeper becomes what it executes when it is called as a keeper.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use ondemand_deadline::scaled;
use ondemand_deadline::Deadline;
use ondemandd::control::client;
use ondemandd::handover::RESUMES;
use ondemandd::report::Report;
use rustix::process::Pid;
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(60);

/// A misc device that is nearly everywhere. It reports an error to whoever waits for it, so that the thread
/// that culls ends at once.
const DEVICE: &str = "/dev/fuse";
const PROGRAM: &str = env!("CARGO_BIN_EXE_ondemandd");

/// A keeper, and the directory where it works. It does not outlive the test.
struct Keeper {
    root: tempfile::TempDir,
    process: Child,
}

impl Keeper {
    /// One with a worker that serves; `None` if there is no such device here.
    fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with more flags.
    fn start_with(flags: &[&str]) -> Option<Self> {
        let Ok(device) = File::options().read(true).write(true).open(DEVICE) else {
            eprintln!("skipped: {DEVICE} cannot be opened");
            return None;
        };
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let program = root.path().join("ondemandd");
        // No copy: a file that was written here cannot be run while another test's child has it open.
        fs::hard_link(PROGRAM, &program).unwrap();
        fs::create_dir(root.path().join("cache")).unwrap();
        let process = Command::new(&program)
            .args(["serve", "--take-over", "--source=/", "--cache"])
            .arg(root.path().join("cache"))
            .arg("--run-dir")
            .arg(root.path().join("run"))
            .args(flags)
            .stdin(Stdio::from(device))
            .stderr(File::create(root.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let keeper = Keeper { root, process };
        // The device refuses `restore`: workers come and go.
        keeper.wait_for("a keeper", || keeper.ask().is_some());
        keeper.write_script("ondemandd", RESUMES, "");
        keeper.wait_for("a worker", || keeper.path("run/keeper.pid").exists());
        Some(keeper)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A program whose workers say that they can go on from this version of a state, after some commands.
    fn write_script(&self, name: &str, resumes: u8, first: &str) -> PathBuf {
        self.write_program(name, resumes, first, "exec sleep 600")
    }

    /// The same with what a worker does at last, while it serves.
    fn write_program(&self, name: &str, resumes: u8, first: &str, last: &str) -> PathBuf {
        let script = format!(
            "#!/bin/sh\n\
             case \"$*\" in *resume) exec {PROGRAM} \"$@\" ;; esac\n\
             {first}\n\
             case $(dd bs=8 count=1 2>/dev/null | od -An -tx1) in\n\
             *02) printf 'ONDD\\000\\001\\002\\{resumes:03o}' >&0; dd bs=8 count=1 >/dev/null 2>&1 ;;\n\
             esac\n\
             printf 'ONDD\\000\\001\\001\\000' >&0\n\
             {last}\n"
        );
        // Written by another process: what is open here for writing, for another test's child as well, cannot
        // be executed.
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat >new && chmod 755 new && mv new \"$0\"", name])
            .current_dir(self.root.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = writer.stdin.take().unwrap();
        input.write_all(script.as_bytes()).unwrap();
        drop(input);
        assert!(writer.wait().unwrap().success());
        self.path(name)
    }

    fn wait_for(&self, what: &str, condition: impl Fn() -> bool) {
        let mut deadline = Deadline::after(SOON);
        loop {
            let passed = deadline.passed();
            if condition() {
                return;
            }
            assert!(!passed, "{what}: not within {deadline}: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn ask(&self) -> Option<Report> {
        client::stats(&self.path("run"), scaled(SOON)).unwrap()
    }

    fn report(&self) -> Report {
        self.ask()
            .unwrap_or_else(|| panic!("no keeper: {}", self.log()))
    }

    fn worker(&self) -> u32 {
        self.report().worker_pid.unwrap()
    }

    fn upgrade(&self, program: Option<&Path>) -> Output {
        self.begin_upgrade(program).wait_with_output().unwrap()
    }

    fn begin_upgrade(&self, program: Option<&Path>) -> Child {
        let mut command = Command::new(PROGRAM);
        command
            .arg("upgrade")
            .arg("--run-dir")
            .arg(self.path("run"));
        if let Some(program) = program {
            command.arg("--program").arg(program);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The upgrade fails with this reason, and leaves the worker alone.
    fn assert_refused(&self, program: &Path, reason: &str) {
        let worker = self.worker();
        let output = self.upgrade(Some(program));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{reason}: {said}");
        assert_eq!(self.worker(), worker, "{}", self.log());
    }

    /// The upgrade succeeds; returns what is said of a keeper that stays what it was.
    fn assert_upgraded(&self, program: Option<&Path>) -> String {
        let before = self.report();
        let output = self.upgrade(program);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}: {}", self.log());
        let after = self.report();
        assert_eq!(after.keeper_pid, self.process.id());
        assert_ne!(after.worker_pid, before.worker_pid);
        assert_eq!(
            after.counters.worker_starts,
            before.counters.worker_starts + 1
        );
        let worker = after.worker_pid.unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains(&format!("worker {worker} of ")), "{told}");
        let noted = fs::read_to_string(self.path("run/worker.pid")).unwrap();
        assert_eq!(noted, format!("{worker}\n"));
        said.into_owned()
    }

    /// The words that the keeper's program was called with.
    fn words(&self) -> String {
        let words = fs::read(format!("/proc/{}/cmdline", self.process.id())).unwrap();
        String::from_utf8_lossy(&words).replace('\0', " ")
    }

    /// SIGTERM ends both in good order.
    fn end(mut self) {
        let pid = Pid::from_child(&self.process);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        let status = self.process.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        for name in ["keeper.pid", "worker.pid", "control.sock"] {
            assert!(!self.path("run").join(name).exists(), "{name}");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // A worker outlives its keeper.
        let Ok(pid) = fs::read_to_string(self.path("run/worker.pid")) else {
            return;
        };
        if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

#[test]
fn the_keeper_becomes_the_new_program_again_and_again() {
    let Some(keeper) = Keeper::start() else {
        return;
    };
    for _ in 0..3 {
        assert_eq!(keeper.assert_upgraded(None), "");
        assert!(keeper.words().ends_with(" resume "), "{}", keeper.words());
        assert!(ondemandd::rundir::is_in_use(&keeper.path("run")).unwrap());
    }
    // From another place, where it then stays.
    let other = keeper.write_script("other", RESUMES, "");
    keeper.assert_upgraded(Some(&other));
    keeper.assert_upgraded(None);
    // A worker that dies is replaced as ever.
    let worker = keeper.worker();
    let pid = Pid::from_raw(worker.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    keeper.wait_for("another worker", || {
        keeper.report().worker_pid.is_some_and(|pid| pid != worker)
    });
    let comm = fs::read_to_string(format!("/proc/{}/comm", keeper.process.id())).unwrap();
    assert_eq!(comm, "ondemandd\n");
    keeper.end();
}

#[test]
fn a_program_that_cannot_serve_leaves_all_as_it_was() {
    let Some(keeper) = Keeper::start() else {
        return;
    };
    let failed = "the new worker failed: ";
    keeper.assert_refused(
        Path::new("/bin/false"),
        &format!("{failed}it said nothing (exit status: 1)"),
    );
    keeper.assert_refused(
        Path::new("/nonexistent"),
        &format!("{failed}cannot start /nonexistent"),
    );
    keeper.assert_refused(Path::new("/dev/null"), failed);
    // One that says why. Who ends without having read resets the connection, and may not be heard.
    let read = "dd bs=8 count=1 >/dev/null 2>&1";
    let said = format!("{read}; printf 'ONDD\\000\\001\\004\\000no such source' >&0; exit 1");
    let sad = keeper.write_script("sad", RESUMES, &said);
    keeper.assert_refused(&sad, &format!("{failed}no such source (exit status: 1)"));
    // One that begins at once. It is ended.
    let pid = keeper.path("hasty.pid");
    let said = format!(
        "echo $$ >{}; printf 'ONDD\\000\\001\\001\\000' >&0; exec sleep 600",
        pid.display()
    );
    let hasty = keeper.write_script("hasty", RESUMES, &said);
    keeper.assert_refused(&hasty, &format!("{failed}it did not wait"));
    let pid = fs::read_to_string(pid).unwrap();
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    keeper.wait_for("the successor's end", || !process.exists());
    // One that ends when it is prepared. The keeper sleeps meanwhile, so that it hears of both at once.
    let said = format!(
        "{read}; kill -STOP $PPID\n\
         (until grep -q zombie /proc/$$/status; do sleep 0.05; done; kill -CONT $PPID) >/dev/null 2>&1 &\n\
         printf 'ONDD\\000\\001\\002\\{RESUMES:03o}' >&0; exit 3"
    );
    let fleeting = keeper.write_script("fleeting", RESUMES, &said);
    let reason = "it was prepared, and ended (exit status: 3)";
    keeper.assert_refused(&fleeting, &format!("{failed}{reason}"));
    let words = keeper.words();
    assert!(words.contains(" serve "), "{words}");
    keeper.end();
}

#[test]
fn a_keeper_that_cannot_follow_stays_and_says_so() {
    let Some(keeper) = Keeper::start() else {
        return;
    };
    let newer = keeper.write_script("newer", RESUMES + 1, "");
    let said = keeper.assert_upgraded(Some(&newer));
    assert!(said.contains("still the program that it was"), "{said}");
    assert!(keeper.words().contains(" serve "), "{}", keeper.words());

    // One that is gone by the time that the keeper would be it.
    let fleeting = keeper.path("fleeting");
    let first = format!("rm {}", fleeting.display());
    keeper.write_script("fleeting", RESUMES, &first);
    let said = keeper.assert_upgraded(Some(&fleeting));
    assert!(said.contains("cannot execute"), "{said}");
    // It takes signals, and writes to those that are gone.
    keeper.write_script("other", RESUMES, "");
    assert_eq!(keeper.assert_upgraded(Some(&keeper.path("other"))), "");
    keeper.end();
}

#[test]
fn a_keeper_that_ends_answers_before_and_leaves_no_successor() {
    let Some(mut keeper) = Keeper::start() else {
        return;
    };
    // A worker that finds the cache dead.
    let dead = keeper.path("dead");
    let last = format!(
        "until [ -e {} ]; do sleep 0.05; done; exit 3",
        dead.display()
    );
    let doomed = keeper.write_program("doomed", RESUMES, "", &last);
    keeper.assert_upgraded(Some(&doomed));
    let pid = keeper.path("slow.pid");
    let first = format!(
        "echo $$ >{0}.new && mv {0}.new {0}; exec sleep 600",
        pid.display()
    );
    let slow = keeper.write_script("slow", RESUMES, &first);
    let client = keeper.begin_upgrade(Some(&slow));
    keeper.wait_for("a successor", || pid.exists());
    File::create(dead).unwrap();
    assert_eq!(keeper.process.wait().unwrap().code(), Some(3));
    let process = format!("/proc/{}", fs::read_to_string(pid).unwrap().trim());
    assert!(!Path::new(&process).exists(), "{}", keeper.log());
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no upgrade: the keeper ends"), "{said}");
}

#[test]
fn metrics_stay_where_they_are() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("metrics");
    let Some(keeper) = Keeper::start_with(&["--metrics", path.to_str().unwrap()]) else {
        return;
    };
    // The same socket by another name, so that one that is bound anew is told apart.
    let other = root.path().join("other");
    fs::hard_link(&path, &other).unwrap();
    for _ in 0..2 {
        keeper.assert_upgraded(None);
        for path in [&path, &other] {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("\nondemandd_worker_up 1\n"), "{answer}");
        }
    }
    keeper.end();
}

#[test]
fn a_client_that_does_not_wait_misses_the_answer_only() {
    let Some(keeper) = Keeper::start() else {
        return;
    };
    let worker = keeper.worker();
    let path = keeper.path("run/control.sock");
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"{\"request\":\"upgrade\"}\n").unwrap();
    drop(stream);
    keeper.wait_for("an upgrade", || {
        keeper
            .ask()
            .is_some_and(|report| report.worker_pid.is_some_and(|pid| pid != worker))
    });
    keeper.wait_for("another program", || keeper.words().ends_with(" resume "));
    keeper.end();
}
