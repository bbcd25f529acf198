// SPDX-License-Identifier: GPL-2.0

//! The daemon threads that poll the device: for messages (`EPOLLIN`), and for culling that is wanted (`EPOLLOUT`).

use crate::kcompat::poll::mask;
use crate::kcompat::poll::WaitQueue;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Those who poll, and what is not in the request table of what they see.
#[pin_data]
pub(crate) struct Pollers {
    #[pin]
    queue: WaitQueue,
    /// The cache wants culling, which `poll` tells.
    wants_culling: AtomicBool,
}

impl Pollers {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                queue <- WaitQueue::new(),
                wants_culling: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// The queue that `poll` of the device watches.
    pub(crate) fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// A message has become deliverable: wakes one thread.
    pub(super) fn wake_for_message(&self) {
        self.queue.wake_one(mask::IN);
    }

    /// Notes whether the cache wants culling, which `wants` says when it is told whether it did, and wakes those who
    /// wait to cull. Of two who say different things at once either may win, until the next one looks.
    pub(crate) fn note_culling(&self, wants: impl FnOnce(bool) -> bool) {
        let now = self.wants_culling();
        let wants = wants(now);
        if wants != now && !self.wants_culling.swap(wants, Ordering::Relaxed) {
            self.queue.wake_all(mask::OUT);
        }
    }

    /// Whether the cache wants culling, as it was last seen.
    pub(crate) fn wants_culling(&self) -> bool {
        self.wants_culling.load(Ordering::Relaxed)
    }
}
