// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the other pure files, in one program: one link instead of ten.

mod coherency;
mod command;
mod errno;
mod ext4;
mod identity;
mod key;
mod limits;
mod present;
mod proto_commands;
mod proto_messages;
