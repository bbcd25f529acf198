// SPDX-License-Identifier: GPL-2.0

//! The volumes that are attached to a cache, and how a withdrawal gets rid of them.
//!
//! Locking: a reference to a volume is never dropped with the lock held: it may be the last one, and
//! fscache frees the volume then, which takes the lock.

use crate::cache::volume::Volume;
use crate::fscache::attachment::Attachment;
use crate::fscache::attachment::WithdrawnCache;
use crate::fscache::attachment::WithdrawnVolume;
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
enum Attached {
    /// The withdrawal has not come to it.
    InUse(Attachment<Volume>),
    /// The withdrawal waits until no access to it is under way, or fscache is freeing it.
    Going,
    /// Nobody accesses it any more.
    Withdrawn(WithdrawnVolume<Volume>),
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

    /// Remembers a volume that is being attached, and tells its number. It is remembered until
    /// [`Volumes::forget`].
    ///
    /// # Errors
    ///
    /// `EIO` if the cache is being withdrawn, `ENOMEM`.
    pub(crate) fn attach(&self, attachment: Attachment<Volume>) -> Result<u64> {
        let mut list = self.list.lock();
        if list.closed {
            return Err(EIO);
        }
        let number = list.next;
        let attached = Attached::InUse(attachment);
        list.attached
            .try_create_and_insert(number, attached, GFP_KERNEL)?;
        list.next += 1;
        Ok(number)
    }

    /// Forgets a volume whose directories are free again; tells the withdrawal.
    pub(crate) fn forget(&self, number: u64) {
        self.list.lock().attached.remove(&number);
        self.freed.notify_all();
    }

    /// Attaches no more of them, and waits, volume by volume, until no access to them is under way.
    pub(super) fn close(&self, cache: &WithdrawnCache<'_>) {
        self.list.lock().closed = true;
        while let Some((number, attachment)) = self.next_in_use() {
            // `None` if fscache is freeing it, which forgets it.
            let Some(volume) = attachment.withdraw(cache) else {
                continue;
            };
            let mut list = self.list.lock();
            // It is there: it is forgotten when what stands behind it goes, which `volume` keeps.
            if let Some(attached) = list.attached.get_mut(&number) {
                *attached = Attached::Withdrawn(volume);
            } else {
                drop(list);
                drop(volume);
            }
        }
    }

    /// Takes out the attachment of a volume that is in use.
    fn next_in_use(&self) -> Option<(u64, Attachment<Volume>)> {
        let mut list = self.list.lock();
        list.attached.iter_mut().find_map(|(number, attached)| {
            match core::mem::replace(attached, Attached::Going) {
                Attached::InUse(attachment) => Some((*number, attachment)),
                other => {
                    *attached = other;
                    None
                }
            }
        })
    }

    /// Detaches what is left of the volumes, and waits for those that fscache is freeing.
    pub(super) fn free(&self) {
        let mut list = self.list.lock();
        loop {
            let next = list.attached.values_mut().find_map(|attached| {
                match core::mem::replace(attached, Attached::Going) {
                    Attached::Withdrawn(volume) => Some(volume),
                    other => {
                        *attached = other;
                        None
                    }
                }
            });
            if let Some(mut withdrawn) = next {
                drop(list);
                if let Some(volume) = withdrawn.detach() {
                    volume.finish(withdrawn.cookie());
                }
                drop(withdrawn);
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
