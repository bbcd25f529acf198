// SPDX-License-Identifier: MIT OR Apache-2.0

//! Loss of power with a disk that has a volatile cache, which writes what it was given in any order.
//!
//! One virtual machine records: [`record`] uses a cache on a disk whose writes and flushes QEMU logs. Another
//! one replays: [`replay`] chooses points of the log, makes the disk that a loss of power may leave there, and
//! looks whether each byte that counts as stored is there, and of the version that its token names.
//!
//! - [`log`], [`survive`] and [`disk`] know nothing of caches: the format, what survives, the bytes.
//! - [`versions`] says what was stored under which token, [`check`] holds a disk against it.
//! - [`device`] is the disk that is recorded; [`visit`] is the process that mounts and reads.

pub mod check;
pub mod device;
pub mod disk;
pub mod log;
pub mod random;
pub mod record;
pub mod replay;
pub mod survive;
pub mod versions;
pub mod visit;
