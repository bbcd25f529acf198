// SPDX-License-Identifier: MIT OR Apache-2.0

//! The run directory: `keeper.pid`, `worker.pid`, `control.sock`, `stats.json`, `cache.path`,
//! `cache.tokens`.
//!
//! Files appear complete, by a rename. The keeper holds a lock on the directory for as long as it
//! lives, so that a pid left behind by one that was killed is never taken for a live one, and no
//! two keepers share a directory.

use std::fs;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use anyhow::bail;
use anyhow::Context;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The keeper's pid; there once the first worker serves.
pub const KEEPER_PID: &str = "keeper.pid";
/// The serving worker's pid; gone between its death and its successor's readiness.
pub const WORKER_PID: &str = "worker.pid";
/// The counters, written on SIGUSR1 and at the end.
pub const STATS: &str = "stats.json";
/// The keeper's control socket; there as long as the keeper is.
pub const CONTROL: &str = "control.sock";
/// Where the cache is that was bound last, and a newline; for the keeper that goes on with it.
pub const CACHE: &str = "cache.path";

/// Whether the kernel keeps versions in that cache apart, `on` or `off`; for the same.
pub const TOKENS: &str = "cache.tokens";

/// A run directory, locked.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Holds the lock.
    lock: File,
}

impl RunDir {
    /// Makes the directory if need be, locks it, and clears what an earlier keeper left.
    ///
    /// # Errors
    ///
    /// Another keeper uses the directory; it cannot be made or written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("cannot make the run directory {}", path.display()))?;
        let Some(lock) = try_lock(path)? else {
            bail!("another keeper uses the run directory {}", path.display());
        };
        let run_dir = RunDir {
            path: path.to_owned(),
            lock,
        };
        for name in [KEEPER_PID, WORKER_PID, STATS, CONTROL] {
            run_dir.remove(name)?;
        }
        Ok(run_dir)
    }

    /// Goes on with a directory that an earlier program of this process has locked; `lock` is its lock.
    #[must_use]
    pub fn resume(path: &Path, lock: OwnedFd) -> Self {
        RunDir {
            path: path.to_owned(),
            lock: File::from(lock),
        }
    }

    /// What holds the lock.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Where something of that name is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file as a whole.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        let new = self.path.join(format!(".{name}.new"));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads a file, if it is there.
    ///
    /// # Errors
    ///
    /// What the file system says; or it is no text.
    pub fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other
                .map(Some)
                .with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a keeper uses the directory.
///
/// # Errors
///
/// There is no such directory.
pub fn is_in_use(path: &Path) -> anyhow::Result<bool> {
    Ok(try_lock(path)?.is_none())
}

/// Locks the directory; `None` if somebody else has.
fn try_lock(path: &Path) -> anyhow::Result<Option<File>> {
    let dir = File::open(path)
        .with_context(|| format!("cannot open the run directory {}", path.display()))?;
    match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(dir)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno).context("cannot lock the run directory"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn one_keeper_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        assert!(is_in_use(&path).is_err());
        let run_dir = RunDir::create(&path).unwrap();
        assert!(is_in_use(&path).unwrap());
        assert!(RunDir::create(&path).is_err());
        run_dir.write(KEEPER_PID, "1\n").unwrap();
        // The socket of a keeper that was killed stays as well.
        drop(UnixListener::bind(run_dir.path(CONTROL)).unwrap());
        drop(run_dir);
        assert!(!is_in_use(&path).unwrap());
        assert!(path.join(KEEPER_PID).exists());
        let _next = RunDir::create(&path).unwrap();
        assert!(!path.join(KEEPER_PID).exists());
        assert!(!path.join(CONTROL).exists());
    }

    #[test]
    fn files_are_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(root.path()).unwrap();
        run_dir.write(STATS, "{\"long\": 1}").unwrap();
        run_dir.write(STATS, "{}").unwrap();
        assert_eq!(fs::read_to_string(root.path().join(STATS)).unwrap(), "{}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert_eq!(run_dir.read(STATS).unwrap().as_deref(), Some("{}"));
        run_dir.remove(STATS).unwrap();
        assert_eq!(run_dir.read(STATS).unwrap(), None);
        run_dir.remove(STATS).unwrap();
    }
}
