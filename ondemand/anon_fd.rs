// SPDX-License-Identifier: GPL-2.0

//! Anonymous fds: where the daemon writes an object's data, and tells that it has.
//!
//! An anonymous fd pins the cache (the daemon's device may be closed before it) but not the fscache
//! cookie: once the cookie is withdrawn, writes fail with ENOBUFS and the fd waits to be closed.

use crate::abi::READ_COMPLETE;
use crate::kcompat::fs::File;
use crate::kcompat::iov::SourceIter;
use crate::kcompat::types::ARef;
use crate::ondemand::client::FillTarget;
use crate::ondemand::engine::Engine;
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
struct AnonFd<C: FillTarget, P> {
    engine: Arc<Engine<C>>,
    object: Arc<C>,
    object_id: u32,
    /// Whether the table knows it: set once its OPEN was delivered.
    delivered: AtomicBool,
    /// Keeps the cache until the fd is closed. Dropped last.
    _pin: P,
}

/// An anonymous file that no fd names yet.
pub(super) struct NewFile<C: FillTarget, P> {
    fd: Arc<AnonFd<C, P>>,
    file: ARef<File>,
}

impl<C: FillTarget, P: Send + Sync + 'static> NewFile<C, P> {
    /// Makes the file for the next opening of `object`; `pin` keeps the cache in service.
    ///
    /// # Errors
    ///
    /// `ENFILE`, `ENOMEM`.
    pub(super) fn new(
        engine: &Arc<Engine<C>>,
        object: &Arc<C>,
        object_id: u32,
        pin: P,
    ) -> Result<Self> {
        let fd = Arc::new(
            AnonFd {
                engine: engine.clone(),
                object: object.clone(),
                object_id,
                delivered: AtomicBool::new(false),
                _pin: pin,
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

struct Private<C: FillTarget, P>(Arc<AnonFd<C, P>>);

impl<C: FillTarget, P: Send + Sync + 'static> AnonFile for Private<C, P> {
    /// Writes into the store, directly. Position, length and memory as the file system wants them
    /// for direct I/O; in whole pages, but for the last one of the object.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a bad alignment, `EFBIG` beyond the object's end, `ENOBUFS` for an object that
    /// is withdrawn or a cache that is full, `ENOSPC`, `EIO`; for an object without a file why none
    /// can be found or made.
    fn write(&self, pos: u64, from: &mut SourceIter<'_>) -> Result<usize> {
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
            engine,
            object,
            object_id,
            ..
        } = &*self.0;
        let number = object.number();
        engine.run(|table, fx| {
            table.read_complete(number, *object_id, msg_id, fx)?;
            trace::answer(msg_id, *object_id, Kind::Read { off: 0, len: 0 }, 0);
            Ok(())
        })
    }

    fn release(self: KBox<Self>) {
        let AnonFd {
            engine,
            object,
            object_id,
            ..
        } = &*self.0;
        if self.0.delivered.load(Ordering::Relaxed) {
            engine.stops().stop_at(Place::FdReleased);
            let number = object.number();
            engine.run(|table, fx| table.fd_closed(number, *object_id, fx));
        }
    }
}
