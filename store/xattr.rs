// SPDX-License-Identifier: GPL-2.0

//! The attributes on disk. `user.CacheFiles.cache`: `store/coherency.rs` says what is in it. Files without
//! it, or with another, are stale: they are replaced. `user.CacheFiles.identity`, of files alone: `store/identity.rs`.

use crate::errno::Errno;
use crate::store::coherency;
use crate::store::identity;
use crate::store::identity::FileId;
use crate::store::identity::Match;
use crate::store::identity::Token;
use crate::vfs::path::Path;
use crate::vfs::store_file::InodeId;
use crate::vfs::store_file::StoreFile;
use crate::vfs::xattr;
use kernel::c_str;
use kernel::prelude::*;
use kernel::str::CStr;

const NAME: &CStr = c_str!("user.CacheFiles.cache");

const IDENTITY: &CStr = c_str!("user.CacheFiles.identity");

/// Reads the attribute; `None` if there is none or it cannot be one of ours.
fn read<'a>(path: &Path, buffer: &'a mut [u8; coherency::MAX]) -> Result<Option<&'a [u8]>> {
    match xattr::get(path, NAME, buffer) {
        Ok(len) => Ok(buffer.get(..len)),
        Err(error) if [Errno::ENODATA, Errno::ERANGE].contains(&error.into()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the attribute of an object's file.
///
/// # Errors
///
/// `ENOSPC`, `EROFS` and what else the file system says.
pub(crate) fn set_object(path: &Path, size: u64) -> Result {
    xattr::set(path, NAME, &coherency::encode_object(size))
}

/// Whether a file is that of an object of this size, without auxiliary data.
///
/// # Errors
///
/// What the file system says when the attribute is read.
pub(crate) fn check_object(path: &Path, size: u64) -> Result<bool> {
    let mut buffer = [0; coherency::MAX];
    let value = read(path, &mut buffer)?;
    Ok(value.and_then(coherency::decode_object) == Some(size))
}

/// Sets the attribute of a volume's directory.
///
/// # Errors
///
/// As [`set_object`].
pub(crate) fn set_volume(path: &Path, data: &[u8]) -> Result {
    xattr::set(path, NAME, coherency::encode_volume(data)?.as_bytes())
}

/// Whether a directory is that of a volume with this coherency data.
///
/// # Errors
///
/// As [`check_object`].
pub(crate) fn check_volume(path: &Path, data: &[u8]) -> Result<bool> {
    let mut buffer = [0; coherency::MAX];
    let value = read(path, &mut buffer)?;
    Ok(value.and_then(coherency::decode_volume) == Some(data))
}

/// Which file it is.
fn id_of(file: &StoreFile) -> Result<FileId> {
    let InodeId {
        number,
        generation,
        made_seconds,
        made_nanoseconds,
    } = file.id()?;
    Ok(FileId {
        inode: number,
        generation,
        made_seconds,
        made_nanoseconds,
    })
}

/// Sets the attribute that says which file it is, and which version it holds.
///
/// # Errors
///
/// As [`set_object`]; what the file system says when it is asked when the file was made.
pub(crate) fn set_identity(file: &StoreFile, token: &Token) -> Result {
    let value = identity::encode(&id_of(file)?, token);
    xattr::set(file.path(), IDENTITY, value.as_bytes())
}

/// Compares it with the version that a daemon tells.
///
/// # Errors
///
/// As [`check_object`], and [`set_identity`].
pub(crate) fn check_identity(file: &StoreFile, token: &Token) -> Result<Match> {
    // One more shows what is too long.
    let mut buffer = [0; identity::MAX + 1];
    let value = match xattr::get(file.path(), IDENTITY, &mut buffer) {
        Ok(len) => buffer.get(..len),
        Err(error) if error == Errno::ENODATA.into() => None,
        Err(error) if error == Errno::ERANGE.into() => Some(&[][..]),
        Err(error) => return Err(error),
    };
    Ok(identity::compare(value, &id_of(file)?, token))
}
