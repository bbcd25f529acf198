// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can be made to go wrong in the surroundings of a table, to see whether it is noticed.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// None.
    None,
    /// Every so many-th mark gets lost: the message is queued and nobody sees it.
    ForgetMark(u32),
    /// A wake-up of the daemon gets lost.
    DropWake,
    /// No reopen work is queued.
    DropReopen,
    /// What one hold of the lock did not finish is never finished.
    SkipResume,
    /// The place of a forgotten object is used again at once.
    ReusePlace,
    /// A reader of the device shows a message although `delivered` refused it.
    ShowRefused,
    /// Those who wait for an object to be open are not woken.
    DropObjectWake,
}
