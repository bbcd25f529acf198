// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where an object lies in the store, computed as the kernel does.
//!
//! The kernel gets the hashes from fscache. A daemon that wants to cull, to seed a store or to look at
//! one has to compute them.

use crate::errno::Errno;
use crate::key;
use crate::key::FileName;

/// The three directory levels below `cache/` that lead to an object's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPath {
    /// `I<volume key>`.
    pub volume: FileName,
    /// `@00` to `@ff`.
    pub fanout: [u8; 3],
    /// The cooked cookie key.
    pub file: FileName,
}

/// fscache's hash of a volume key.
///
/// It covers a byte that counts the key, the key, and a NUL.
///
/// # Errors
///
/// `ENAMETOOLONG`: the key is longer than 255 bytes, which fscache refuses.
pub fn volume_hash(volume_key: &[u8]) -> Result<u32, Errno> {
    let count = u8::try_from(volume_key.len()).map_err(|_| Errno::ENAMETOOLONG)?;
    let mut buffer = [0; 1 + 255 + 1];
    let end = 1 + usize::from(count);
    buffer[0] = count;
    buffer[1..end].copy_from_slice(volume_key);
    Ok(key::fscache_hash(0, &buffer[..=end]))
}

/// Where the object with `cookie_key` in the volume with `volume_key` is stored.
///
/// # Errors
///
/// Those of [`key::volume_name`] and [`key::cook`].
pub fn object_path(volume_key: &[u8], cookie_key: &[u8]) -> Result<ObjectPath, Errno> {
    let volume = key::volume_name(volume_key)?;
    let file = key::cook(cookie_key)?;
    let hash = key::fscache_hash(volume_hash(volume_key)?, cookie_key);
    Ok(ObjectPath {
        volume,
        fanout: key::fanout_name(hash),
        file,
    })
}
