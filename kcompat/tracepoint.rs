// SPDX-License-Identifier: GPL-2.0

//! The module's tracepoints, system `ondemand`: numbers and names.
//!
//! C header: `shim/ondemand_trace.h`, which says what the fields mean.
//!
//! Upstream: `kernel::tracepoint` calls tracepoints without a shim, since 6.13; they are declared in C there, too.

use crate::bindings;

/// `ondemand_enqueue`.
pub(crate) fn enqueue(object: u32, msg_id: u32, opcode: u32, off: u64, len: u64) {
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_enqueue(object, msg_id, opcode, off, len) }
}

/// `ondemand_deliver`.
pub(crate) fn deliver(object: u32, msg_id: u32, object_id: u32, opcode: u32) {
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_deliver(object, msg_id, object_id, opcode) }
}

/// `ondemand_answer`.
pub(crate) fn answer(msg_id: u32, object_id: u32, opcode: u32, result: i64) {
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_answer(msg_id, object_id, opcode, result) }
}

/// `ondemand_complete`.
pub(crate) fn complete(msg_id: u32, object_id: u32, opcode: u32, error: i32) {
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_complete(msg_id, object_id, opcode, error) }
}

/// What has expired, for `ondemand_expire`.
pub(crate) struct Expired<'a> {
    /// The volume's key.
    pub(crate) volume: &'a [u8],
    /// The object's name.
    pub(crate) name: &'a [u8],
    pub(crate) msg_id: u32,
    pub(crate) opcode: u32,
    pub(crate) off: u64,
    pub(crate) len: u64,
    pub(crate) error: i32,
}

/// `ondemand_expire`.
pub(crate) fn expire(expired: &Expired<'_>) {
    let Expired { volume, name, .. } = expired;
    // SAFETY: The tracepoint copies both strings, which are as long as it is told.
    unsafe {
        bindings::trace_expire(
            volume.as_ptr().cast(),
            volume.len(),
            name.as_ptr().cast(),
            name.len(),
            expired.msg_id,
            expired.opcode,
            expired.off,
            expired.len,
            expired.error,
        )
    }
}

/// `ondemand_state`. May be called under a spinlock.
pub(crate) fn state(object: u32, object_id: u32, from: u32, to: u32) {
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_state(object, object_id, from, to) }
}
