// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is done beside the answers.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::BLOCK_SIZE;
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::thread::UnshareFlags;

use crate::kept;
use crate::say;
use crate::script::Action;
use crate::script::Kept;
use crate::Mock;

/// Commands that the kernel must refuse, in whatever state the cache is.
const NONSENSE: [&[u8]; 20] = [
    b"",
    b"\n",
    b" restore",
    b"restore x",
    b"restore\nrestore",
    b"copen",
    b"copen ",
    b"copen ,",
    b"copen 1",
    b"copen -1,4096",
    b"copen 99999999999999999999,4096",
    b"cread 1",
    b"bind",
    b"bind ondemand",
    b"dir /",
    b"tag x",
    b"brun 101%",
    b"cull ../x",
    b"inuse .",
    b"\0\0\0\0",
];

impl Mock {
    /// Does something that needs no message. It never fails: what the kernel says is of no
    /// interest, or is printed.
    pub(crate) fn beside(&self, action: &Action, what: &str) {
        match action {
            Action::ForkKeep(kept) => self.fork_keep(*kept, what),
            Action::ExhaustFds(ms) => exhaust(*ms),
            Action::Restore(times) => {
                for _ in 0..*times {
                    say_error(what, "restore", self.device.write_bytes(b"restore"));
                }
            }
            Action::Garbage(count) => (0..*count).for_each(|_| self.garbage(what)),
            Action::Noise(below) => self.noise(*below, what),
            Action::CloseAll => {
                for opened in self.files.take() {
                    say_error(what, "close", opened.close_now());
                }
            }
            Action::Poke => self.poke(),
            Action::Cull(path) => self.store_command("cull", path, what),
            Action::Inuse(path) => self.store_command("inuse", path, what),
            // `Action::beside` leaves these to the answers.
            _ => {}
        }
    }

    fn fork_keep(&self, kept: Kept, what: &str) {
        let closed = match kept {
            Kept::Files => vec![self.device.as_fd().as_raw_fd()],
            Kept::Device => self.files.descriptors(),
            Kept::Both => Vec::new(),
        };
        match kept::fork(&closed) {
            Ok(pid) => say!("{what}: process {pid} keeps {kept:?}"),
            Err(errno) => say!("{what}: fork: {errno}"),
        }
    }

    fn garbage(&self, what: &str) {
        let mut bytes = [0; 200];
        let (kind, len) = {
            let mut random = self.random();
            random.fill(&mut bytes);
            (
                random.usize(..NONSENSE.len() * 2),
                random.usize(1..bytes.len()),
            )
        };
        let text = NONSENSE.get(kind).copied().unwrap_or(&bytes[..len]);
        if self.device.write_bytes(text).is_ok() {
            say!("{what}: garbage was accepted: {}", text.escape_ascii());
        }
        // No message fits into this.
        let read = self.device.read_bytes(&mut bytes[..8]);
        if !matches!(read, Ok(0) | Err(Errno::MSGSIZE)) {
            say!("{what}: read of 8 bytes: {read:?}");
        }
    }

    /// Answers something that may be there or not.
    fn noise(&self, below: u32, what: &str) {
        let (id, kind, size, file) = {
            let mut random = self.random();
            let file = self.files.any(&mut random);
            let id = random.u32(..below.max(1));
            (id, random.u8(..3), random.u32(..) & !4095, file)
        };
        let command = match kind {
            0 => format!("copen {id},-{}", Errno::IO.raw_os_error()),
            1 => format!("copen {id},{size}"),
            _ => {
                if file.is_some_and(|opened| opened.file.read_complete(id).is_ok()) {
                    say!("{what}: the answer to READ {id} was taken");
                }
                return;
            }
        };
        if self.device.write_bytes(command.as_bytes()).is_ok() {
            say!("{what}: {command} was taken");
        }
    }

    /// Uses the file of some object, which may be gone.
    fn poke(&self) {
        let (opened, block) = {
            let mut random = self.random();
            let Some(opened) = self.files.any(&mut random) else {
                return;
            };
            (opened, random.usize(..))
        };
        let Some(image) = &opened.image else { return };
        let all = image.bytes();
        let at = block % (all.len() / BLOCK_SIZE).max(1) * BLOCK_SIZE;
        let offset = u64::try_from(at).unwrap_or(0);
        let data = all.get(at..at + BLOCK_SIZE).unwrap_or_default();
        // Any of these may fail.
        let _ = opened.file.write_at(data, offset);
        let _ = opened.file.seek_hole(offset);
        let _ = opened.file.seek_data(offset);
    }

    fn store_command(&self, command: &str, path: &Path, what: &str) {
        let name = path.file_name().unwrap_or(OsStr::new("?")).as_bytes();
        let line = [command.as_bytes(), b" ", name].concat();
        let written = thread::scope(|scope| {
            let thread = scope.spawn(|| -> Result<Result<usize, Errno>> {
                // SAFETY: The current directory becomes this thread's own; it shares no descriptor
                // less than before.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
                rustix::process::chdir(path.parent().context("no directory")?)?;
                Ok(self.device.write_bytes(&line))
            });
            thread.join().map_err(|_| anyhow::anyhow!("panicked"))?
        });
        let path = path.display();
        match written {
            Ok(Ok(_)) => say!("{what}: {command} {path}: done"),
            Ok(Err(errno)) => say!("{what}: {command} {path}: {errno}"),
            Err(error) => say!("{what}: {command} {path}: {error:#}"),
        }
    }
}

fn say_error<T>(what: &str, did: &str, result: Result<T, Errno>) {
    if let Err(errno) = result {
        say!("{what}: {did}: {errno}");
    }
}

/// Takes away the right to new descriptors, and gives it back after so many milliseconds.
fn exhaust(ms: u64) {
    /// Whether it is taken away.
    static EXHAUSTED: AtomicBool = AtomicBool::new(false);

    if EXHAUSTED.swap(true, Ordering::SeqCst) {
        return;
    }
    let full = rustix::process::getrlimit(Resource::Nofile);
    let mut none = full;
    // `poll` takes no more descriptors than this; number 0 is in use.
    none.current = Some(1);
    // A soft limit may always be changed up to the hard one.
    let _ = rustix::process::setrlimit(Resource::Nofile, none);
    thread::spawn(move || {
        thread::park_timeout(Duration::from_millis(ms));
        let _ = rustix::process::setrlimit(Resource::Nofile, full);
        EXHAUSTED.store(false, Ordering::SeqCst);
    });
}
