// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes wrong without an error: a reader that stands still, and what the
//! kernel's log complains about.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use ondemand_deadline::overdue;
use rustix::io::Errno;

use crate::readers::Pass;

/// The first reader without a byte for `stall_s` seconds of the reference machine: its
/// index and the seconds since its last.
pub(crate) fn stalled(pass: &Pass, stall_s: u64) -> Option<(usize, u64)> {
    let now = pass.now_ms();
    pass.readers.iter().enumerate().find_map(|(i, reader)| {
        let last = reader.progress_ms.load(Ordering::Relaxed);
        let idle = Duration::from_millis(now.saturating_sub(last));
        if last == u64::MAX {
            return None;
        }
        overdue(idle, Duration::from_secs(stall_s))?;
        // The measurement takes a moment, in which bytes may have come.
        let still = reader.progress_ms.load(Ordering::Relaxed) == last;
        still.then_some((i, idle.as_secs()))
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

/// Parts of what a healthy kernel never says, one a line.
const REPORTS: &str = include_str!("../../kernel-reports.txt");

/// So many complaints are told; one that repeats itself would fill everything.
const MOST: usize = 20;

/// A place in the kernel's log.
pub(crate) struct KernelLog {
    kmsg: fs::File,
    left: usize,
}

impl KernelLog {
    /// The oldest line that the kernel still has.
    ///
    /// # Errors
    /// When `/dev/kmsg` cannot be opened.
    pub(crate) fn open() -> Result<Self> {
        let kmsg = fs::OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits())?)
            .open("/dev/kmsg")
            .context("opening /dev/kmsg")?;
        Ok(Self { kmsg, left: MOST })
    }

    /// The lines since the last call that are a complaint; 20 in all calls together.
    ///
    /// The kernel keeps a limited number of lines, and each mount makes some: who waits for the end
    /// of a long run with this may miss one.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        let mut record = [0; 8192];
        loop {
            match std::io::Read::read(&mut self.kmsg, &mut record) {
                Ok(n) => {
                    let text = String::from_utf8_lossy(&record[..n]);
                    let message = text.split_once(';').map_or(&*text, |(_, m)| m).trim_end();
                    if is_report(message) && self.left > 0 {
                        self.left -= 1;
                        found.push(message.lines().next().unwrap_or_default().to_owned());
                    }
                }
                // Records that were overwritten before we read them: go on with the next.
                Err(e) if e.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {}
                Err(_) => return found,
            }
        }
    }
}

fn is_report(message: &str) -> bool {
    REPORTS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .any(|report| message.contains(report))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_told_from_chatter() {
        assert!(is_report("BUG: KASAN: slab-use-after-free in f+0x1/0x2"));
        assert!(is_report(
            "WARNING: possible circular locking dependency detected"
        ));
        assert!(is_report("rust_kernel: panicked at io.rs:1:1:"));
        assert!(!is_report(
            "erofs: (device erofs): mounted with root inode @ nid 36."
        ));
        assert!(!is_report(""));
    }
}
