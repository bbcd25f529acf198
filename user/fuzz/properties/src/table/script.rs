// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bytes as events.

/// Where the numbers begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// The first msg_id.
    pub(super) msg_id: u32,
    /// The object_id before the first.
    pub(super) object_id: u32,
}

/// Something that happens. A number chooses, modulo their count, among what is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// fscache looks a cookie up.
    Admit,
    /// So many readers ask this object for a range.
    Read(u8, u8),
    /// A queued OPEN is sent; `false`: there is no memory for it.
    Work(u8, bool),
    /// A thread of the daemon begins to read the device; `true`: with a small buffer.
    Begin(u8, bool),
    /// A thread's read ends; `false`: without success.
    End(u8, bool),
    /// A thread of the daemon reads one message.
    Deliver,
    /// An OPEN is answered, with a size (`true`) or an error.
    Copen(u8, bool),
    /// Any request, or none, is answered as if it were an OPEN.
    ForgeCopen(u8),
    /// The check of a file ends; `false`: the file is not the one.
    Finish(u8, bool),
    /// A READ is answered.
    Complete(u8),
    /// Any request, or none, is answered as if it were a READ, on any fd.
    ForgeComplete(u8, u8),
    /// An anonymous fd is closed.
    Close(u8),
    /// `restore`.
    Restore,
    /// A reader is killed.
    Cancel(u8),
    /// fscache withdraws a cookie.
    Drop(u8),
    /// The cache dies.
    Flush,
    /// A reader waits for an opening.
    Await(u8),
    /// An unfinished walk goes on.
    Resume(u8),
    /// The daemon dies.
    Crash,
    /// The daemon dies, and the fds of answered OPENs are kept.
    CrashButKeep,
    /// The first request is due.
    Expire,
    /// The next requests are due earlier or later than those before.
    Clock(u8),
    /// The daemon opens all that is to be opened.
    Settle,
}

/// Not more than so many are played, to keep each input short.
const LONGEST: usize = 160;

fn event(bytes: [u8; 3]) -> Option<Event> {
    let [kind, n, m] = bytes;
    // One in eight fails.
    let mostly = m % 8 != 7;
    Some(match kind % 64 {
        0 => Event::Admit,
        1..=4 => Event::Read(n, 1),
        5 => Event::Read(n, 1 + m % 16),
        6..=9 => Event::Work(n, mostly),
        10..=12 => Event::Begin(n % 3, m % 8 == 7),
        13..=15 => Event::End(n % 3, mostly),
        16..=22 => Event::Deliver,
        23..=26 => Event::Copen(n, mostly),
        27 => Event::ForgeCopen(n),
        28..=31 => Event::Finish(n, mostly),
        32..=34 => Event::Complete(n),
        35 => Event::ForgeComplete(n, m),
        36..=38 => Event::Close(n),
        39 | 40 => Event::Restore,
        41 => Event::Cancel(n),
        42 => Event::Drop(n),
        43 if n > 200 => Event::Flush,
        44 | 45 => Event::Await(n),
        46..=48 => Event::Resume(n),
        49 => Event::Crash,
        50 => Event::Expire,
        51 => Event::Clock(n),
        52 | 53 => Event::Settle,
        54 => Event::CrashButKeep,
        _ => return None,
    })
}

/// Reads a whole input: one byte for the beginning, then events. Bytes without a meaning are skipped.
pub(super) fn read(data: &[u8]) -> (Start, Vec<Event>) {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    // Some inputs begin shortly before the numbers wrap.
    let near_the_end = u32::MAX - u32::from(first % 64);
    let start = Start {
        msg_id: if first & 64 == 0 { 0 } else { near_the_end },
        object_id: if first & 128 == 0 { 0 } else { near_the_end },
    };
    let events = rest
        .chunks_exact(3)
        .filter_map(|bytes| event([bytes[0], bytes[1], bytes[2]]));
    (start, events.take(LONGEST).collect())
}
