// SPDX-License-Identifier: MIT OR Apache-2.0

//! The objects that are open in this worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use cachefiles_proto::AnonymousFile;

use crate::manifest::Manifest;
use crate::record::Name;
use crate::source::ahead::Pattern;
use crate::source::Blob;

/// One open object. When the last reference goes, the kernel takes it for closed.
#[derive(Debug)]
pub struct Object {
    /// Its id, which is new with each OPEN.
    pub id: u32,
    /// The way into the cache.
    pub file: AnonymousFile,
    /// Where the data comes from.
    pub blob: Blob,
    /// What the data must be.
    pub manifest: Option<Manifest>,
    /// Which source the blob is of, by its place in [`Sources::iter`].
    ///
    /// [`Sources::iter`]: crate::source::names::Sources::iter
    pub source: usize,
    /// For the log.
    pub name: String,
    /// What is in use is of another version: it gets no data.
    pub sealed: bool,
    /// What the record calls it.
    pub key: Name,
    /// What its readers will want next, if anything is read ahead for them.
    pub pattern: Option<Mutex<Pattern>>,
}

/// The objects by their object id, which is new with each OPEN.
#[derive(Debug, Default)]
pub struct Objects {
    by_id: Mutex<HashMap<u32, Arc<Object>>>,
    /// Signalled when an object is removed: its descriptor may be free then.
    removed: Condvar,
}

impl Objects {
    /// Adds an object; a stale one under the same id is returned.
    pub fn insert(&self, object_id: u32, object: Arc<Object>) -> Option<Arc<Object>> {
        self.lock().insert(object_id, object)
    }

    /// Looks an object up. The result keeps it open while a READ is answered.
    #[must_use]
    pub fn get(&self, object_id: u32) -> Option<Arc<Object>> {
        self.lock().get(&object_id).cloned()
    }

    /// Removes an object; it is closed when the last READ of it that is under way ends.
    pub fn remove(&self, object_id: u32) -> Option<Arc<Object>> {
        let object = self.lock().remove(&object_id);
        self.removed.notify_all();
        object
    }

    /// Whether an object is open: neither closed, nor replaced by a newer one.
    #[must_use]
    pub fn is_open(&self, object: &Arc<Object>) -> bool {
        self.get(object.id)
            .is_some_and(|other| Arc::ptr_eq(&other, object))
    }

    /// Waits until an object is removed, but no longer than `within`.
    pub fn wait_for_removal(&self, within: Duration) {
        let guard = self.lock();
        // Either way the caller tries again.
        drop(self.removed.wait_timeout(guard, within));
    }

    /// No code panics while it holds the lock, so a poisoned map is as good as any.
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Object>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
