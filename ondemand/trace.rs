// SPDX-License-Identifier: GPL-2.0

//! What happens to requests and objects, as tracepoints.
//!
//! One request can be followed by its msg_id from `ondemand_enqueue` over `ondemand_deliver` and `ondemand_answer` to
//! `ondemand_complete`; the object's number ties it to `ondemand_state`.

use crate::abi;
use crate::errno::Errno;
use crate::kcompat::tracepoint;
use crate::kcompat::tracepoint::Expired;
use crate::ondemand::queue::Kind;
use crate::ondemand::state::State;

fn opcode(kind: Kind) -> u32 {
    match kind {
        Kind::Open => abi::OP_OPEN,
        Kind::Close { .. } => abi::OP_CLOSE,
        Kind::Read { .. } => abi::OP_READ,
    }
}

/// What a READ asks for; otherwise nothing.
fn range(kind: Kind) -> (u64, u64) {
    match kind {
        Kind::Read { off, len } => (off, len),
        _ => (0, 0),
    }
}

/// A request has entered the queue.
pub(super) fn enqueue(object: u32, msg_id: u32, kind: Kind) {
    let (off, len) = range(kind);
    tracepoint::enqueue(object, msg_id, opcode(kind), off, len);
}

/// The daemon has been given a message.
pub(super) fn deliver(object: u32, msg_id: u32, object_id: u32, kind: Kind) {
    tracepoint::deliver(object, msg_id, object_id, opcode(kind));
}

/// The daemon has answered; `result` is a size, 0 for READ_COMPLETE, or a negative error number.
pub(super) fn answer(msg_id: u32, object_id: u32, kind: Kind, result: i64) {
    tracepoint::answer(msg_id, object_id, opcode(kind), result);
}

/// A request has left the queue for good; `object_id` is 0 if no daemon had it.
pub(super) fn complete(msg_id: u32, object_id: u32, kind: Kind, error: i32) {
    tracepoint::complete(msg_id, object_id, opcode(kind), error);
}

/// A request for the object of this volume and name has ended since nobody answered it in time; `complete` follows.
pub(super) fn expire(volume: &[u8], name: &[u8], msg_id: u32, kind: Kind) {
    let (off, len) = range(kind);
    tracepoint::expire(&Expired {
        volume,
        name,
        msg_id,
        opcode: opcode(kind),
        off,
        len,
        error: Errno::ETIMEDOUT.to_raw(),
    });
}

/// An object has changed its state. May be called under a spinlock.
pub(super) fn state(object: u32, from: State, to: State) {
    let object_id = match (from, to) {
        (_, State::Open { object_id }) | (State::Open { object_id }, _) => object_id,
        _ => 0,
    };
    tracepoint::state(object, object_id, from.number(), to.number());
}
