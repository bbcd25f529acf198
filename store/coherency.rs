// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the attribute `user.CacheFiles.cache` holds: what a file or directory of the store belongs to.
//!
//! On disk, all numbers big-endian. A file: object size (8 bytes), zero point (8, written as 0 and not
//! looked at), type (1, data = 1), content (1, written as 0; 4 = written by a netfs and never
//! finished), then the netfs's auxiliary data, of which there is none. A volume's directory: 4 bytes of
//! 0, then its coherency data. Whatever is of no such form is stale: it is replaced.

use crate::errno::Errno;

/// Bytes of the value of a file.
pub const OBJECT_HEADER: usize = 18;
const VOLUME_HEADER: usize = 4;
const TYPE_DATA: u8 = 1;
const CONTENT_NO_DATA: u8 = 0;
const CONTENT_DIRTY: u8 = 4;

/// Bytes of the longest value that is written or read. Auxiliary and coherency data are at most 255
/// bytes; one more shows what is too long.
pub const MAX: usize = OBJECT_HEADER + 256;

/// The value for a volume's directory, of at most [`MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeValue {
    bytes: [u8; MAX],
    /// How many of `bytes` are in use; the rest is zero.
    len: usize,
}

impl VolumeValue {
    /// The value as it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The value for the file of an object of `size` bytes.
pub fn encode_object(size: u64) -> [u8; OBJECT_HEADER] {
    let mut value = [0; OBJECT_HEADER];
    value[..8].copy_from_slice(&size.to_be_bytes());
    value[16] = TYPE_DATA;
    value[17] = CONTENT_NO_DATA;
    value
}

/// The value for the directory of a volume with this coherency data.
///
/// # Errors
///
/// `ERANGE`: it would be longer than [`MAX`].
pub fn encode_volume(coherency: &[u8]) -> Result<VolumeValue, Errno> {
    let mut bytes = [0; MAX];
    let len = VOLUME_HEADER + coherency.len();
    let place = bytes.get_mut(VOLUME_HEADER..len).ok_or(Errno::ERANGE)?;
    place.copy_from_slice(coherency);
    Ok(VolumeValue { bytes, len })
}

/// The size in bytes of the object whose file has this value; `None` if the file is stale whatever
/// the object.
pub fn decode_object(value: &[u8]) -> Option<u64> {
    let value: &[u8; OBJECT_HEADER] = value.try_into().ok()?;
    let [a, b, c, d, e, f, g, h, _zero_point @ .., kind, content] = *value;
    (kind == TYPE_DATA && content != CONTENT_DIRTY)
        .then_some(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// The coherency data of the volume whose directory has this value; `None` if the directory is stale
/// whatever the volume.
pub fn decode_volume(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(&[0; VOLUME_HEADER])
}
