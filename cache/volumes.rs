// SPDX-License-Identifier: GPL-2.0

//! The volumes that are attached to a cache, and how a withdrawal gets rid of them.
//!
//! Locking: a reference to a volume is never dropped with the lock held: it may be the last one, and
//! fscache frees the volume then, which takes the lock.

use crate::cache::Cache;
use crate::fscache::backend::Attachment;
use crate::fscache::volume::VolumeCookie;
use kernel::new_condvar;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::CondVar;
use kernel::sync::Mutex;

/// The attached volumes, by their number; closed once the cache is withdrawn.
#[derive(Default)]
struct List {
    closed: bool,
    next: u64,
    attached: RBTree<u64, Attached>,
}

// Nothing in it is pinned: the guard of a lock gives a reference to change only such data, since 6.19.
impl Unpin for List {}

/// A volume that is in use.
struct Attached {
    /// The right to detach it; taken by whoever does.
    attachment: Option<Attachment<Cache>>,
    /// The withdrawal has waited for its accesses, or is about to.
    withdrawn: bool,
}

/// The volumes of one cache.
#[pin_data]
pub(crate) struct Volumes {
    #[pin]
    list: Mutex<List>,
    #[pin]
    freed: CondVar,
}

impl Volumes {
    /// There is none.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(List::default(), "cachefiles_volumes"),
            freed <- new_condvar!("cachefiles_volume_freed"),
        })
    }

    /// Remembers and pins a volume that is being attached, and tells its number. It is remembered
    /// until [`Volumes::forget`].
    ///
    /// # Errors
    ///
    /// `EIO` if the cache is being withdrawn, `ENOMEM`.
    pub(crate) fn attach(
        &self,
        cookie: &VolumeCookie,
        attachment: Attachment<Cache>,
    ) -> Result<u64> {
        let mut list = self.list.lock();
        if list.closed {
            return Err(EIO);
        }
        let number = list.next;
        let attached = Attached {
            attachment: Some(attachment),
            withdrawn: false,
        };
        list.attached
            .try_create_and_insert(number, attached, GFP_KERNEL)?;
        list.next += 1;
        cookie.pin();
        Ok(number)
    }

    /// Hands out the right to detach a volume; `None` if the withdrawal was faster.
    pub(crate) fn detach(&self, number: u64) -> Option<Attachment<Cache>> {
        let mut list = self.list.lock();
        list.attached.get_mut(&number)?.attachment.take()
    }

    /// Forgets a volume whose directories are free again; tells the withdrawal.
    pub(crate) fn forget(&self, number: u64) {
        self.list.lock().attached.remove(&number);
        self.freed.notify_all();
    }

    /// Attaches no more of them, and waits, volume by volume, until no access to them is under way.
    pub(super) fn close(&self) {
        self.list.lock().closed = true;
        loop {
            let next = {
                let mut list = self.list.lock();
                let Some(attached) = list.attached.values_mut().find(|it| !it.withdrawn) else {
                    return;
                };
                attached.withdrawn = true;
                let attachment = attached.attachment.as_ref();
                attachment.and_then(|attachment| attachment.volume().upgrade())
            };
            if let Some(volume) = next {
                volume.withdraw();
            }
        }
    }

    /// Frees what is left of the volumes, or waits until fscache has.
    pub(super) fn free(&self) {
        let mut list = self.list.lock();
        loop {
            let taken = list.attached.values_mut().find_map(|attached| {
                let cookie = attached.attachment.as_ref()?.volume().upgrade()?;
                Some((cookie, attached.attachment.take()?))
            });
            if let Some((cookie, attachment)) = taken {
                drop(list);
                if let Some(volume) = attachment.detach(&cookie) {
                    volume.finish(&cookie);
                }
                drop(cookie);
                list = self.list.lock();
            } else if list.attached.iter().next().is_none() {
                return;
            } else {
                // fscache is freeing those that are left, and `forget` tells us.
                self.freed.wait(&mut list);
            }
        }
    }
}
