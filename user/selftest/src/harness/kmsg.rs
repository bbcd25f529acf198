// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the kernel said while a test ran.

use rustix::fd::OwnedFd;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Parts of the kernel's reports of its own errors, one a line, after comments. A test during which
/// one appears has failed.
const REPORTS: &str = include_str!("../../../kernel-reports.txt");

/// A place in the kernel's log.
#[derive(Debug)]
pub struct KernelLog {
    fd: OwnedFd,
}

/// One line of the kernel's log.
#[derive(Clone, Debug)]
pub struct Line {
    /// The text without level and time.
    pub text: String,
    /// Whether it reports an error of the kernel.
    pub report: bool,
}

impl KernelLog {
    /// The end of the log.
    ///
    /// # Errors
    ///
    /// What `open` or `lseek` of `/dev/kmsg` says.
    pub fn end() -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/kmsg", flags, Mode::empty())?;
        rustix::fs::seek(&fd, SeekFrom::End(0))?;
        Ok(KernelLog { fd })
    }

    /// What has been logged since this was made or last asked.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        loop {
            match rustix::io::read(&self.fd, &mut record) {
                Ok(0) => return lines,
                Ok(len) => {
                    let record = String::from_utf8_lossy(&record[..len]);
                    let text = record.split_once(';').map_or(&*record, |(_, text)| text);
                    // What follows the first line describes the device concerned.
                    let text = text.lines().next().unwrap_or_default().to_owned();
                    let report = is_report(&text);
                    lines.push(Line { text, report });
                }
                // The ring was overwritten: go on with what is there.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(_) => return lines,
            }
        }
    }
}

fn is_report(text: &str) -> bool {
    REPORTS
        .lines()
        .filter(|part| !part.starts_with('#'))
        .any(|part| text.contains(part))
}
