// SPDX-License-Identifier: GPL-2.0

//! How those who wait for a READ are told that it has ended.

use crate::kcompat::completion::Completion;
use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering;
use kernel::prelude::*;

/// What readers wait for: the end of a READ.
#[pin_data]
pub(crate) struct Waiter {
    #[pin]
    done: Completion,
    /// 0 or a negative error number; set before `done` happens.
    result: AtomicI32,
}

impl Waiter {
    /// The READ has not ended.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            done <- Completion::new(),
            result: AtomicI32::new(0),
        })
    }

    /// The READ has ended with 0 or a negative error number. Called once.
    pub(super) fn end(&self, result: i32) {
        self.result.store(result, Ordering::Relaxed);
        self.done.complete_all();
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if the task was killed first.
    pub(super) fn wait(&self) -> Result {
        self.done.wait_killable_freezable()
    }

    /// How it has ended.
    ///
    /// # Errors
    ///
    /// What it has ended with.
    pub(super) fn result(&self) -> Result {
        kernel::error::to_result(self.result.load(Ordering::Relaxed))
    }
}
