// SPDX-License-Identifier: GPL-2.0

//! Anonymous fds: where the daemon writes an object's data, and tells that it has.
//!
//! An anonymous fd pins the cache (the daemon's device may be closed before it) but not the fscache
//! cookie: once the cookie is withdrawn, writes fail with ENOBUFS and the fd waits to be closed.

use crate::abi::READ_COMPLETE;
use crate::daemon::Daemon;
use crate::daemon::Pin;
use crate::kcompat::fs::File;
use crate::kcompat::iov::IovIter;
use crate::kcompat::types::ARef;
use crate::object::Object;
use crate::ondemand::queue::Kind;
use crate::ondemand::trace;
use crate::stop_points::Place;
use crate::vfs::anon_inode;
use crate::vfs::anon_inode::AnonFile;
use crate::vfs::store_file::Whence;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering;
use kernel::c_str;
use kernel::prelude::*;
use kernel::sync::Arc;

/// What stands behind one anonymous fd.
pub(crate) struct AnonFd {
    object: Arc<Object>,
    object_id: u32,
    /// Whether the table knows it: set once its OPEN was delivered.
    delivered: AtomicBool,
    /// Keeps the cache until the fd is closed. Dropped last.
    _pin: Pin,
}

/// An anonymous file that no fd names yet.
pub(crate) struct NewFile {
    fd: Arc<AnonFd>,
    file: ARef<File>,
}

impl NewFile {
    /// Makes the file for the next opening of `object`.
    ///
    /// # Errors
    ///
    /// `ENFILE`, `ENOMEM`.
    pub(super) fn new(object: &Arc<Object>, object_id: u32) -> Result<Self> {
        let fd = Arc::new(
            AnonFd {
                object: object.clone(),
                object_id,
                delivered: AtomicBool::new(false),
                _pin: Daemon::pin(object.cache().daemon()),
            },
            GFP_KERNEL,
        )?;
        let private = KBox::new(Private(fd.clone()), GFP_KERNEL)?;
        let file = anon_inode::write_only(c_str!("[cachefiles]"), private)?;
        Ok(NewFile { fd, file })
    }

    /// The table has taken the fd as delivered: its closing is to be told to the table.
    pub(super) fn into_delivered(self) -> ARef<File> {
        self.fd.delivered.store(true, Ordering::Relaxed);
        self.file
    }
}

struct Private(Arc<AnonFd>);

impl AnonFile for Private {
    /// Writes into the store, directly. Position, length and memory as the file system wants them
    /// for direct I/O; in whole pages, but for the last one of the object.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a bad alignment, `EFBIG` beyond the object's end, `ENOBUFS` for an object that
    /// is withdrawn or a cache that is full, `ENOSPC`, `EIO`; those of
    /// [`find`](crate::object::Object::find) for an object without a file.
    fn write(&self, pos: u64, from: &mut IovIter) -> Result<usize> {
        self.0.object.fill(pos, from)
    }

    /// `SEEK_DATA` and `SEEK_HOLE` tell what is stored already.
    fn seek(&self, offset: i64, whence: Whence) -> Result<i64> {
        self.0.object.seek(offset, whence)
    }

    /// `CACHEFILES_IOC_READ_COMPLETE` with the msg_id of a READ.
    ///
    /// # Errors
    ///
    /// `EINVAL` for any other command, and for a msg_id that is no READ delivered for this fd.
    fn ioctl(&self, command: u32, argument: usize) -> Result {
        if command != READ_COMPLETE {
            return Err(EINVAL);
        }
        let msg_id = u32::try_from(argument).map_err(|_| EINVAL)?;
        let AnonFd {
            object, object_id, ..
        } = &*self.0;
        let number = object.number();
        let engine = object.cache().engine();
        engine.run(|table, fx| {
            table.read_complete(number, *object_id, msg_id, fx)?;
            trace::answer(msg_id, *object_id, Kind::Read { off: 0, len: 0 }, 0);
            Ok(())
        })
    }

    fn release(self: KBox<Self>) {
        let AnonFd {
            object, object_id, ..
        } = &*self.0;
        if self.0.delivered.load(Ordering::Relaxed) {
            object.cache().daemon().stop_at(Place::FdReleased);
            let number = object.number();
            let engine = object.cache().engine();
            engine.run(|table, fx| table.fd_closed(number, *object_id, fx));
        }
    }
}
