// SPDX-License-Identifier: MIT OR Apache-2.0

//! The anonymous files that are open.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use cachefiles_proto::AnonymousFile;
use rustix::io::Errno;

use crate::Image;

/// An open object.
#[derive(Debug)]
pub struct Opened {
    /// Where its data goes.
    pub file: AnonymousFile,
    /// Where its data comes from; `None` if it is not known.
    pub image: Option<Arc<Image>>,
}

impl Opened {
    /// The name of the image, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.image.as_ref().map_or("?", |image| &image.name)
    }

    /// [`close_under_users`]
    ///
    /// # Errors
    ///
    /// What `open` or `dup3` says.
    pub fn close_now(&self) -> Result<(), Errno> {
        close_under_users(&self.file)
    }
}

/// Closes the file of a descriptor at once, whoever is using it.
///
/// The number stays in use, for `/dev/null`: another thread that is about to use it must not meet
/// a file that was opened since.
///
/// # Errors
///
/// What `open` or `dup3` says.
pub fn close_under_users(fd: impl AsFd) -> Result<(), Errno> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let (with, fd) = (null.as_raw_fd(), fd.as_fd().as_raw_fd());
    // SAFETY: Both are open, and each stays what its owner takes it for: a file that can be read
    // and written.
    let done = unsafe { libc::dup3(with, fd, libc::O_CLOEXEC) };
    if done < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(())
}

/// All that are open, under their object ids.
#[derive(Debug, Default)]
pub struct Files(Mutex<BTreeMap<u32, Arc<Opened>>>);

impl Files {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Opened>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one.
    pub fn insert(&self, object_id: u32, opened: Arc<Opened>) {
        self.lock().insert(object_id, opened);
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, object_id: u32) -> Option<Arc<Opened>> {
        self.lock().get(&object_id).map(Arc::clone)
    }

    /// Forgets one; it is closed when nobody uses it.
    pub fn remove(&self, object_id: u32) -> Option<Arc<Opened>> {
        self.lock().remove(&object_id)
    }

    /// Forgets all.
    #[must_use]
    pub fn take(&self) -> Vec<Arc<Opened>> {
        std::mem::take(&mut *self.lock()).into_values().collect()
    }

    /// Any of them, if there are some.
    #[must_use]
    pub fn any(&self, random: &mut fastrand::Rng) -> Option<Arc<Opened>> {
        let files = self.lock();
        let number = random.usize(..files.len().max(1));
        files.values().nth(number).map(Arc::clone)
    }

    /// The numbers of all descriptors.
    #[must_use]
    pub fn descriptors(&self) -> Vec<RawFd> {
        let files = self.lock();
        files
            .values()
            .map(|opened| opened.file.as_fd().as_raw_fd())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_while_in_use() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let files = Files::default();
        files.insert(
            3,
            Arc::new(Opened {
                file: AnonymousFile::from(writer),
                image: None,
            }),
        );
        let used = files.get(3).unwrap();
        for opened in files.take() {
            opened.close_now().unwrap();
        }
        assert!(files.get(3).is_none());
        // The pipe has no writer any more, although its holder is still there.
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
        assert_eq!(rustix::io::write(&used.file, b"x"), Ok(1));
    }
}
