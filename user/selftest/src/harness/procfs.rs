// SPDX-License-Identifier: MIT OR Apache-2.0

//! Looking at processes, and ending those of a test.

use std::fs;

use rustix::process::Pid;
use rustix::process::Signal;

/// A process as `/proc/PID/stat` shows it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// `R`, `S`, `D`, `Z` ...
    pub state: char,
    /// The id of its session.
    pub session: i32,
}

/// Reads `/proc/PID/stat`.
#[must_use]
pub fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold some itself.
    let open = stat.find('(')?;
    let close = stat.rfind(')')?;
    let mut rest = stat.get(close + 1..)?.split_whitespace();
    let state = rest.next()?.chars().next()?;
    // After the state: parent, process group, session.
    let session = rest.nth(2)?.parse().ok()?;
    Some(Process {
        pid,
        name: stat.get(open + 1..close)?.to_owned(),
        state,
        session,
    })
}

/// All processes, those that end meanwhile left out.
#[must_use]
pub fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(process)
        .collect()
}

/// The processes of a session that have not ended.
#[must_use]
pub fn of_session(session: i32) -> Vec<Process> {
    let mut found = processes();
    found.retain(|process| process.session == session && process.state != 'Z');
    found
}

/// Sends SIGKILL to all of a session; says whether there was somebody.
pub fn kill_session(session: i32) -> bool {
    let found = of_session(session);
    for process in &found {
        if let Some(pid) = Pid::from_raw(process.pid) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    !found.is_empty()
}

/// Where in the kernel a process waits, one line a function.
#[must_use]
pub fn stacks(process: &Process) -> Vec<String> {
    let mut lines = vec![format!(
        "{} {} state {}",
        process.pid, process.name, process.state
    )];
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", process.pid)) else {
        return lines;
    };
    for thread in threads.flatten() {
        let stack = fs::read_to_string(thread.path().join("stack")).unwrap_or_default();
        lines.extend(stack.lines().map(|line| format!("    {line}")));
    }
    lines
}

/// The stacks of what may be to blame: the processes of a session, and whatever is in state D.
#[must_use]
pub fn suspicious_stacks(session: i32) -> Vec<String> {
    processes()
        .iter()
        .filter(|process| process.state != 'Z')
        .filter(|process| process.session == session || process.state == 'D')
        .flat_map(stacks)
        .collect()
}
