// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can be made to go wrong, in the surroundings of a table or in the table itself, to see whether
//! it is noticed.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// None.
    None,
    /// Every so many-th mark gets lost: the message is queued and nobody sees it.
    ForgetMark(u32),
    /// A wake-up of the daemon gets lost.
    DropWake,
    /// A read of the device wakes no other thread for what it leaves behind.
    WakeNoNext,
    /// No reopen work is queued.
    DropReopen,
    /// What one hold of the lock did not finish is never finished.
    SkipResume,
    /// The same, when the cache dies.
    FlushLeaves,
    /// The place of a forgotten object is used again at once.
    ReusePlace,
    /// A reader of the device shows a message although `delivered` refused it.
    ShowRefused,
    /// The same, but only if the request has ended meanwhile.
    ShowEnded,
    /// A READ whose fd closed during its delivery counts as delivered under the old object_id.
    StaleRead,
    /// Those who wait for an object to be open are not woken.
    DropObjectWake,
    /// `poll` overlooks a message that is the only one.
    PollLies,
    /// READs of a reopening that was refused are put back, and the object is opened again (D7).
    PutBackRefused,
    /// A READ that was delivered stays so when its fd closes (D5).
    LoseDelivered,
    /// `restore` re-issues an OPEN whose fd lives (D6).
    ReissueLiving,
    /// `restore` does nothing.
    RestoreNothing,
    /// `restore` makes no READ deliverable again whose fd is open.
    RestoreNoRead,
    /// `restore` overlooks a READ that is being delivered.
    RestoreForgetsDelivery,
    /// A READ that is deliverable again cannot be answered by who has it.
    RestoreForbidsAnswer,
    /// A READ is delivered twice without a `restore`.
    DeliverTwice,
    /// An answer to what is not queued any more is accepted.
    LateAnswer,
    /// What was answered stays in the queue.
    AnswerTwice,
    /// A READ that was answered leaves the queue and its reader is not told.
    LoseAnswer,
    /// The entry of an object that is gone stays in the table.
    KeepEntry,
}
