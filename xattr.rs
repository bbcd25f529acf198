// SPDX-License-Identifier: GPL-2.0

//! Coherency: the attribute `user.CacheFiles.cache`, which tells what a file or directory of the
//! store belongs to.
//!
//! On disk, all numbers big-endian. A file: object size (8 bytes), zero point (8, always 0), type
//! (1, data = 1), content (1, always 0 here; 4 = written by a netfs and never finished), then the
//! netfs's auxiliary data. A volume's directory: 4 bytes of 0, then its coherency data. Files without
//! the attribute, or with another, are stale: they are replaced.

use crate::errno::Errno;
use crate::vfs::path::Path;
use crate::vfs::xattr;
use kernel::c_str;
use kernel::prelude::*;
use kernel::str::CStr;

const NAME: &CStr = c_str!("user.CacheFiles.cache");
const OBJECT_HEADER: usize = 18;
const VOLUME_HEADER: usize = 4;
const TYPE_DATA: u8 = 1;
const CONTENT_NO_DATA: u8 = 0;
const CONTENT_DIRTY: u8 = 4;
/// Auxiliary and coherency data are at most 255 bytes; one more shows what is too long.
const MAX: usize = OBJECT_HEADER + 256;

fn encode<'a>(buffer: &'a mut [u8; MAX], parts: &[&[u8]]) -> Result<&'a [u8]> {
    let mut at = 0;
    for part in parts {
        let end = at + part.len();
        buffer.get_mut(at..end).ok_or(ERANGE)?.copy_from_slice(part);
        at = end;
    }
    buffer.get(..at).ok_or(ERANGE)
}

/// Reads the attribute; `None` if there is none or it cannot be one of ours.
fn read<'a>(path: &Path, buffer: &'a mut [u8; MAX]) -> Result<Option<&'a [u8]>> {
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
    let mut buffer = [0; MAX];
    let parts: [&[u8]; 3] = [&size.to_be_bytes(), &[0; 8], &[TYPE_DATA, CONTENT_NO_DATA]];
    xattr::set(path, NAME, encode(&mut buffer, &parts)?)
}

/// Whether a file is that of an object of this size, without auxiliary data.
///
/// # Errors
///
/// What the file system says when the attribute is read.
pub(crate) fn check_object(path: &Path, size: u64) -> Result<bool> {
    let mut buffer = [0; MAX];
    let Some(value) = read(path, &mut buffer)? else {
        return Ok(false);
    };
    Ok(value.len() == OBJECT_HEADER
        && value.starts_with(&size.to_be_bytes())
        && value.get(16) == Some(&TYPE_DATA)
        && value.get(17) != Some(&CONTENT_DIRTY))
}

/// Sets the attribute of a volume's directory.
///
/// # Errors
///
/// As [`set_object`].
pub(crate) fn set_volume(path: &Path, coherency: &[u8]) -> Result {
    let mut buffer = [0; MAX];
    xattr::set(
        path,
        NAME,
        encode(&mut buffer, &[&[0; VOLUME_HEADER], coherency])?,
    )
}

/// Whether a directory is that of a volume with this coherency data.
///
/// # Errors
///
/// As [`check_object`].
pub(crate) fn check_volume(path: &Path, coherency: &[u8]) -> Result<bool> {
    let mut buffer = [0; MAX];
    let Some(value) = read(path, &mut buffer)? else {
        return Ok(false);
    };
    let (Some(header), Some(stored)) = (value.get(..VOLUME_HEADER), value.get(VOLUME_HEADER..))
    else {
        return Ok(false);
    };
    Ok(header == [0; VOLUME_HEADER] && stored == coherency)
}
