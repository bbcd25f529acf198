// SPDX-License-Identifier: GPL-2.0

//! The module's tracepoints, system `ondemand`.
//!
//! C header: `shim/ondemand_trace.h`, which says what the fields mean. One request can be followed
//! by its msg_id from `ondemand_enqueue` over `ondemand_deliver` and `ondemand_answer` to
//! `ondemand_complete`; the object's number ties it to `ondemand_state`.
//!
//! Upstream: `kernel::tracepoint` calls tracepoints without a shim, since 6.13; they are declared in C there, too.

use crate::bindings;
use crate::errno::Errno;
use crate::object::Object;
use crate::ondemand::engine::Kernel;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::Request;
use crate::ondemand::state::State;

fn opcode(kind: Kind) -> u32 {
    match kind {
        Kind::Open => bindings::cachefiles_opcode_CACHEFILES_OP_OPEN,
        Kind::Close { .. } => bindings::cachefiles_opcode_CACHEFILES_OP_CLOSE,
        Kind::Read { .. } => bindings::cachefiles_opcode_CACHEFILES_OP_READ,
    }
}

/// A request has entered the queue.
pub(crate) fn enqueue(object: u32, msg_id: u32, kind: Kind) {
    let (off, len) = match kind {
        Kind::Read { off, len } => (off, len),
        _ => (0, 0),
    };
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_enqueue(object, msg_id, opcode(kind), off, len) }
}

/// The daemon has been given a message.
pub(crate) fn deliver(object: u32, msg_id: u32, object_id: u32, kind: Kind) {
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_deliver(object, msg_id, object_id, opcode(kind)) }
}

/// The daemon has answered; `result` is a size, 0 for READ_COMPLETE, or a negative error number.
pub(crate) fn answer(msg_id: u32, object_id: u32, kind: Kind, result: i64) {
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_answer(msg_id, object_id, opcode(kind), result) }
}

/// A request has left the queue for good; `object_id` is 0 if no daemon had it.
pub(crate) fn complete(msg_id: u32, object_id: u32, kind: Kind, error: i32) {
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_complete(msg_id, object_id, opcode(kind), error) }
}

/// A request has ended since nobody answered it in time; `complete` follows.
pub(crate) fn expire(object: &Object, request: &Request<Kernel>) {
    let (off, len) = match request.kind {
        Kind::Read { off, len } => (off, len),
        _ => (0, 0),
    };
    let (volume, name) = (object.volume_key(), object.name());
    // SAFETY: The tracepoint copies both strings, which are as long as it is told.
    unsafe {
        bindings::trace_expire(
            volume.as_ptr().cast(),
            volume.len(),
            name.as_ptr().cast(),
            name.len(),
            request.msg_id(),
            opcode(request.kind),
            off,
            len,
            Errno::ETIMEDOUT.to_raw(),
        )
    }
}

/// An object has changed its state. May be called under a spinlock.
pub(crate) fn state(object: u32, from: State, to: State) {
    let object_id = match (from, to) {
        (_, State::Open { object_id }) | (State::Open { object_id }, _) => object_id,
        _ => 0,
    };
    // SAFETY: The tracepoint takes numbers.
    unsafe { bindings::trace_state(object, object_id, from.number(), to.number()) }
}
