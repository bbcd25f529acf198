// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the virtual file system, for a module that keeps files of its own on
//! someone else's file system.

pub(crate) mod anon_inode;
pub(crate) mod cred;
pub(crate) mod dir;
pub(crate) mod direct_io;
mod in_use;
pub(crate) mod path;
pub(crate) mod removal;
pub(crate) mod security;
pub(crate) mod store_file;
pub(crate) mod xattr;
