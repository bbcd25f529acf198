// SPDX-License-Identifier: GPL-2.0

//! The on-demand protocol, in one page.
//!
//! EROFS reads an image through fscache; what is not in the store yet is asked of a daemon. Each
//! object (an image or a blob) has one place in the *request table* ([`table`]), which holds its
//! state and its requests:
//!
//! - **Opening.** A lookup finds or makes the object's file, puts an OPEN into the queue and
//!   returns; nobody waits for a daemon on fscache's workqueue. The daemon reads the OPEN and with
//!   it gets an *anonymous fd* ([`anon_fd`]) to write the data to. It answers `copen MSG,SIZE`; the
//!   file is checked against the size in the daemon's own context, then the object is `OPEN`.
//! - **Reading.** A reader waits until its object has been open once, then looks for holes in what
//!   it wants. For each it queues a READ and waits, killable. The daemon writes the range to the
//!   anonymous fd and completes the READ with an ioctl; the reader looks again. No progress is an
//!   error, never zeros.
//! - **Failover.** When a daemon dies its anonymous fds close, while a supervisor keeps the device
//!   open. The object is `CLOSE` then; if READs are outstanding they are *parked* and the object is
//!   `REOPENING`: a work item sends a new OPEN. Once it is answered the parked READs
//!   become deliverable again. A READ on a closed object does the same. OPENs that the dead daemon
//!   had read and not answered wait for `restore`.
//! - **The end.** Withdrawing a cookie makes its object `DROPPING` and asks the daemon to close the
//!   fd with a CLOSE that nobody waits for. Closing the device kills the table: all requests end
//!   with EIO. The last fd to close, device or anonymous, withdraws the cache.
//!
//! The table is pure: [`queue`], [`state`], [`table`], [`delivery`], [`answer`], [`ending`],
//! [`deadline`] and [`message`] know nothing of the kernel, and are tested in `user/core`. [`engine`]
//! puts it under a lock and carries out its effects, [`expiry`] has it look at the clock. What an object is
//! beside that, they do not know: it is a [`Client`](client::Client). The wire format is in `docs/protocol.md`.

#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod answer;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod deadline;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod delivery;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod ending;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod message;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod queue;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod state;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod table;

mod anon_fd;
pub(crate) mod client;
pub(crate) mod device_read;
pub(crate) mod engine;
mod expiry;
mod fetch;
mod places;
pub(crate) mod pollers;
mod reads;
mod trace;
mod waiter;

kernel::static_assert!(message::HEADER == crate::abi::SIZEOF_MSG);
kernel::static_assert!(message::OPEN_BODY == crate::abi::SIZEOF_OPEN);
kernel::static_assert!(message::READ_BODY == crate::abi::SIZEOF_READ);
