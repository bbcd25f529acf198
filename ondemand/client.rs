// SPDX-License-Identifier: GPL-2.0

//! What the protocol knows of an object.

use crate::kcompat::fmt;
use crate::kcompat::iov::SourceIter;
use crate::kcompat::poll::WaitQueue;
use crate::kcompat::workqueue::OwnedQueue;
use crate::ondemand::message::Message;
use crate::vfs::store_file::Whence;
use kernel::prelude::*;
use kernel::sync::Arc;

/// An object that a daemon is asked for, as a whole and range by range. It is displayed in the log.
pub(crate) trait Client: fmt::Display + Send + Sync + Sized + 'static {
    /// Its place in the request table.
    fn number(&self) -> u32;

    /// Sets the place. Called once, before the object can be found in the table.
    fn set_number(&self, number: u32);

    /// The queue of those who wait for the first opening.
    fn opened(&self) -> &WaitQueue;

    /// The volume's key, without a NUL.
    fn volume_key(&self) -> &[u8];

    /// The cookie's key: any bytes, at most 255.
    fn cookie_key(&self) -> &[u8];

    /// What it is called where somebody reads it.
    fn name(&self) -> &[u8];

    /// Has `queue` call [`Engine::send_open`](crate::ondemand::engine::Engine::send_open) for it. Does not sleep. If
    /// that is queued already, it will find that the object wants to be opened.
    fn queue_reopening(self: Arc<Self>, queue: &'static OwnedQueue);

    /// The OPEN that asks for this object.
    fn open_message(&self, fd: i32) -> Message<'_> {
        Message::Open {
            fd,
            volume_key: self.volume_key(),
            cookie_key: self.cookie_key(),
        }
    }
}

/// An object that a daemon fills through an anonymous fd.
pub(crate) trait FillTarget: Client {
    /// Stores what was written to the fd at `pos`, and tells how many bytes.
    ///
    /// # Errors
    ///
    /// See [`anon_fd`](crate::ondemand::anon_fd).
    fn fill(self: &Arc<Self>, pos: u64, from: &mut SourceIter<'_>) -> Result<usize>;

    /// `lseek` of the fd: tells what is stored already.
    ///
    /// # Errors
    ///
    /// `ENXIO` beyond the end, `EINVAL`; why there is no file.
    fn seek(&self, offset: i64, whence: Whence) -> Result<i64>;
}
