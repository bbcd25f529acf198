// SPDX-License-Identifier: MIT OR Apache-2.0

//! Typed messages, commands and a safe handle for `/dev/cachefiles` in on-demand mode.
//!
//! In this mode the kernel asks a user-space daemon for every part of a file that its cache does
//! not hold yet. The daemon reads one [`Message`] at a time from the [`Device`]:
//!
//! - [`Open`]: an object is looked up. The message carries an [`AnonymousFile`], through which the
//!   object's data is written; the daemon answers with [`Command::Copen`].
//! - [`Read`]: a range of an object is wanted. The daemon writes it with
//!   [`AnonymousFile::write_all_at`] and ends with [`AnonymousFile::read_complete`].
//! - [`Close`]: an object went away. The daemon drops its [`AnonymousFile`].
//!
//! The C header behind this is `include/uapi/linux/cachefiles.h`; what no header states is in the
//! project's `docs/protocol.md`.
//!
//! # Example: the smallest daemon
//!
//! ```no_run
//! use std::collections::HashMap;
//!
//! use cachefiles_proto::{Buffer, Command, Device, Message, OpenAnswer, Readiness};
//!
//! # fn main() -> Result<(), cachefiles_proto::Error> {
//! let device = Device::open(Device::DEFAULT_PATH)?;
//! device.send(&Command::Dir("/var/cache/fscache".into()))?;
//! device.send(&Command::BindOnDemand)?;
//!
//! let mut buffer = Buffer::new();
//! let mut objects = HashMap::new();
//! loop {
//!     device.wait(Readiness::MESSAGE, None)?;
//!     match device.read_message(&mut buffer)? {
//!         None => {}
//!         Some(Message::Open(open)) => {
//!             let answer = OpenAnswer::Size(4096);
//!             let copen = Command::Copen { msg_id: open.msg_id, answer };
//!             objects.insert(open.object_id, open.file);
//!             device.send(&copen)?;
//!         }
//!         Some(Message::Read(read)) => {
//!             if let Some(file) = objects.get(&read.object_id) {
//!                 // Real data would come from somewhere; direct I/O wants aligned memory.
//!                 file.read_complete(read.msg_id)?;
//!             }
//!         }
//!         Some(Message::Close(close)) => drop(objects.remove(&close.object_id)),
//!     }
//! }
//! # }
//! ```

mod anon_file;
mod command;
mod device;
mod error;
mod message;
mod packet;
pub mod passing;
mod token;

pub use anon_file::AnonymousFile;
pub use anon_file::READ_COMPLETE_OPCODE;
pub use command::is_window;
pub use command::Command;
pub use command::Fill;
pub use command::Limit;
pub use command::OpenAnswer;
pub use command::MAX_BATCH;
pub use command::MAX_COMMAND_LEN;
pub use command::MAX_FETCH;
pub use command::MAX_TIMEOUT;
pub use command::MIN_FETCH;
pub use device::Buffer;
pub use device::Device;
pub use device::Readiness;
pub use error::DecodeError;
pub use error::EncodeError;
pub use error::Error;
pub use error::Result;
pub use message::Close;
pub use message::Message;
pub use message::Open;
pub use message::Read;
pub use packet::Packet;
pub use packet::Payload;
pub use packet::MAX_MESSAGE_LEN;
pub use token::NoToken;
pub use token::Token;
pub use token::MAX_TOKEN;

/// The unit of everything that is written to an [`AnonymousFile`], in bytes.
///
/// Offset, length and the address of the buffer must be multiples of it: the kernel passes the
/// write on to the cache file with direct I/O, and accounts space in pages.
pub const BLOCK_SIZE: usize = 4096;
