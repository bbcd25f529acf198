// SPDX-License-Identifier: MIT OR Apache-2.0

//! The attribute of files and directories of the store (`store/coherency.rs`): what is written is read
//! back, and of all other bytes exactly those are taken that the protocol allows.

use ondemand_core::coherency::decode_object;
use ondemand_core::coherency::decode_volume;
use ondemand_core::coherency::encode_object;
use ondemand_core::coherency::encode_volume;
use ondemand_core::coherency::MAX;
use ondemand_core::errno::Errno;

/// The size that a value of a file tells, by the protocol.
fn object_size(value: &[u8]) -> Option<u64> {
    if value.len() != 18 || value[16] != 1 || value[17] == 4 {
        return None;
    }
    let digits: String = value[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    u64::from_str_radix(&digits, 16).ok()
}

/// Eight bytes for a size, the rest for a value.
///
/// # Errors
///
/// Says what does not hold.
pub fn holds(data: &[u8]) -> Result<(), String> {
    let (head, value) = data.split_at(data.len().min(8));
    let size = head
        .iter()
        .fold(0, |size, byte| size << 8 | u64::from(*byte));

    let found = decode_object(value);
    let expected = object_size(value);
    ensure!(
        found == expected,
        "a file with {value:02x?} is {found:?}, not {expected:?}"
    );
    let found = decode_volume(value);
    let expected = match value {
        [0, 0, 0, 0, data @ ..] => Some(data),
        _ => None,
    };
    ensure!(
        found == expected,
        "a directory with {value:02x?} is {found:02x?}, not {expected:02x?}"
    );

    let written = encode_object(size);
    ensure!(
        object_size(&written) == Some(size) && decode_object(&written) == Some(size),
        "size {size} is written as {written:02x?}"
    );
    ensure!(
        written[8..16] == [0; 8] && written[17] == 0,
        "size {size}: zero point and content are not 0 in {written:02x?}"
    );
    match encode_volume(value) {
        Ok(written) => {
            let written = written.as_bytes();
            ensure!(
                written.len() <= MAX && decode_volume(written) == Some(value),
                "{value:02x?} is written as {written:02x?}"
            );
        }
        Err(error) => ensure!(
            error == Errno::ERANGE && value.len() > 255,
            "{} bytes of coherency data: {error:?}",
            value.len()
        ),
    }
    Ok(())
}
