// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes wrong without an error: a reader that stands still, and what the
//! kernel's log complains about.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use rustix::io::Errno;

use crate::readers::Pass;

/// The first reader without a byte for `stall_s` seconds: its index and the
/// seconds since its last.
pub(crate) fn stalled(pass: &Pass, stall_s: u64) -> Option<(usize, u64)> {
    let now = pass.now_ms();
    pass.readers.iter().enumerate().find_map(|(i, reader)| {
        let last = reader.progress_ms.load(Ordering::Relaxed);
        let idle_s = now.saturating_sub(last) / 1000;
        (last != u64::MAX && idle_s >= stall_s).then_some((i, idle_s))
    })
}

/// The state and kernel stack of a task, as text; what cannot be read is left out.
pub(crate) fn stack(pid: i32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let state = status
        .lines()
        .find(|line| line.starts_with("State:"))
        .unwrap_or("State: gone");
    format!(
        "{} ({pid}) {state}\n{}",
        read("comm").trim_end(),
        read("stack")
    )
}

/// What each reader is at, with the kernel stacks of its thread.
pub(crate) fn readers(pass: &Pass) -> String {
    let mut text = String::new();
    let now = pass.now_ms();
    for (i, reader) in pass.readers.iter().enumerate() {
        let last = reader.progress_ms.load(Ordering::Relaxed);
        if last == u64::MAX {
            continue;
        }
        let path = reader.path.lock().unwrap().display().to_string();
        let idle = now.saturating_sub(last);
        let tid = reader.tid.load(Ordering::Relaxed);
        text += &format!(
            "reader {i}: {path}, {idle} ms without a byte\n{}",
            stack(tid)
        );
    }
    text
}

/// Every kernel worker that stands in cachefiles, fscache or EROFS.
pub(crate) fn kernel_workers() -> String {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|dir| dir.file_name().to_str()?.parse().ok())
        .map(stack)
        .filter(|text| text.starts_with("kworker"))
        .filter(|text| {
            ["cachefiles", "fscache", "erofs", "netfs"]
                .iter()
                .any(|w| text.contains(w))
        })
        .collect()
}

/// What a healthy kernel never says.
const COMPLAINTS: [&str; 12] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "KASAN:",
    "UBSAN:",
    "Kernel panic",
    "general protection fault",
    "refcount_t:",
    "INFO: task",
    "rust_kernel: panicked",
    "possible circular locking",
    "kernel BUG at",
];

/// The lines of the kernel's log that are a complaint, at most 20.
///
/// # Errors
/// When `/dev/kmsg` cannot be opened.
pub(crate) fn complaints() -> Result<Vec<String>> {
    let mut kmsg = fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits())?)
        .open("/dev/kmsg")
        .context("opening /dev/kmsg")?;
    let mut found = Vec::new();
    let mut record = [0; 8192];
    loop {
        match std::io::Read::read(&mut kmsg, &mut record) {
            Ok(n) => {
                let text = String::from_utf8_lossy(&record[..n]);
                let message = text.split_once(';').map_or(&*text, |(_, m)| m).trim_end();
                if COMPLAINTS.iter().any(|c| message.contains(c)) && found.len() < 20 {
                    found.push(message.lines().next().unwrap_or_default().to_owned());
                }
            }
            // Records that were overwritten while we read: go on with the next.
            Err(e) if e.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {}
            Err(_) => return Ok(found),
        }
    }
}

/// Makes the kernel forget what it has read, so that the next pass asks again.
///
/// # Errors
/// When `/proc/sys/vm/drop_caches` cannot be written.
pub(crate) fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    fs::OpenOptions::new()
        .write(true)
        .open("/proc/sys/vm/drop_caches")
        .and_then(|mut file| file.write_all(b"3\n"))
        .context("drop_caches")
}
