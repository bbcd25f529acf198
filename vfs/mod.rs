// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the virtual file system, for a module that keeps files of its own on
//! someone else's file system.

pub(crate) mod allocation;
pub(crate) mod anon_inode;
pub(crate) mod cred;
pub(crate) mod dentry;
pub(crate) mod dir;
mod in_use;
pub(crate) mod page_cache;
pub(crate) mod path;
pub(crate) mod removal;
mod renaming;
pub(crate) mod security;
pub(crate) mod store_file;
pub(crate) mod store_io;
pub(crate) mod superblock;
pub(crate) mod xattr;
