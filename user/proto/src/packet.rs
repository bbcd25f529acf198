// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bytes of a message, checked: `struct cachefiles_msg` and its payloads.
//!
//! C header: `include/uapi/linux/cachefiles.h`. All numbers are in the machine's byte order.

use std::os::fd::RawFd;

use crate::error::DecodeError;

/// `CACHEFILES_MSG_MAX_SIZE`: no message is longer, in bytes.
pub const MAX_MESSAGE_LEN: usize = 1024;

const OP_OPEN: u32 = 0;
const OP_CLOSE: u32 = 1;
const OP_READ: u32 = 2;

/// `sizeof(struct cachefiles_msg)` without its payload.
const HEADER_LEN: usize = 16;
/// `sizeof(struct cachefiles_open)` without its keys.
const OPEN_LEN: usize = 16;
/// `sizeof(struct cachefiles_read)`.
const READ_LEN: usize = 16;

/// A message as it lies in a buffer, its lengths checked and nothing owned.
///
/// Use [`Message`](crate::Message) in a daemon; this view is for tools that look at the bytes
/// only. It holds the number of the new descriptor, which says nothing about who owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Names the request in the answer. Cyclic over `u32`, not reused soon.
    pub msg_id: u32,
    /// Names the object; every (re)open of an object gets a new one. Starts at 1.
    pub object_id: u32,
    /// What is asked.
    pub payload: Payload<'a>,
}

/// The part of a [`Packet`] that depends on its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// `CACHEFILES_OP_OPEN`
    Open {
        /// Number of the anonymous file's descriptor in the reading process.
        fd: RawFd,
        /// No flag is defined up to Linux 7.2: always 0.
        flags: u32,
        /// The volume's key, without the NUL that ends it in the message.
        volume_key: &'a [u8],
        /// The cookie's key: binary, may hold any byte.
        cookie_key: &'a [u8],
    },
    /// `CACHEFILES_OP_CLOSE`
    Close,
    /// `CACHEFILES_OP_READ`
    Read {
        /// First byte wanted, a multiple of [`BLOCK_SIZE`](crate::BLOCK_SIZE).
        off: u64,
        /// Number of bytes wanted; the range may reach beyond the end of the object.
        len: u64,
    },
}

/// Cuts `N` bytes off the front of `bytes`.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let short = DecodeError::Truncated {
        need: N,
        have: bytes.len(),
    };
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(short)?;
    *bytes = rest;
    Ok(*head)
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, DecodeError> {
    take(bytes).map(u32::from_ne_bytes)
}

fn take_u64(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    take(bytes).map(u64::from_ne_bytes)
}

/// The bytes of the first message in `bytes`.
///
/// # Errors
///
/// A [`DecodeError`] if they do not hold as many bytes as it says it has, or it says that it has fewer
/// than any message.
pub(crate) fn first_message(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let mut header = bytes;
    let _msg_id = take_u32(&mut header)?;
    let _opcode = take_u32(&mut header)?;
    let len = take_u32(&mut header)?;
    usize::try_from(len)
        .ok()
        .filter(|len| *len >= HEADER_LEN)
        .and_then(|len| bytes.get(..len))
        .ok_or(DecodeError::LengthField {
            field: len,
            have: bytes.len(),
        })
}

impl<'a> TryFrom<&'a [u8]> for Packet<'a> {
    type Error = DecodeError;

    /// Decodes exactly one message.
    ///
    /// # Errors
    ///
    /// A [`DecodeError`] for anything but a message of which every length agrees with every other.
    fn try_from(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let msg_id = take_u32(&mut rest)?;
        let opcode = take_u32(&mut rest)?;
        let len = take_u32(&mut rest)?;
        let object_id = take_u32(&mut rest)?;

        if usize::try_from(len) != Ok(bytes.len()) {
            return Err(DecodeError::LengthField {
                field: len,
                have: bytes.len(),
            });
        }
        let payload = match opcode {
            OP_OPEN => decode_open(rest)?,
            OP_CLOSE if rest.is_empty() => Payload::Close,
            OP_READ if rest.len() == READ_LEN => Payload::Read {
                off: take_u64(&mut rest)?,
                len: take_u64(&mut rest)?,
            },
            OP_CLOSE | OP_READ => {
                return Err(DecodeError::PayloadLength {
                    opcode,
                    have: rest.len(),
                })
            }
            _ => return Err(DecodeError::UnknownOpcode(opcode)),
        };
        Ok(Packet {
            msg_id,
            object_id,
            payload,
        })
    }
}

fn decode_open(mut rest: &[u8]) -> Result<Payload<'_>, DecodeError> {
    let volume_len = take_u32(&mut rest)?;
    let cookie_len = take_u32(&mut rest)?;
    let fd = take_u32(&mut rest)?;
    let flags = take_u32(&mut rest)?;

    // Both lengths come from outside: add them where they cannot overflow.
    if u64::from(volume_len) + u64::from(cookie_len) != u64::try_from(rest.len()).unwrap_or(0) {
        return Err(DecodeError::KeyLengths {
            volume: volume_len,
            cookie: cookie_len,
            have: rest.len(),
        });
    }
    let split = usize::try_from(volume_len).unwrap_or(usize::MAX);
    let (volume, cookie_key) = rest
        .split_at_checked(split)
        .ok_or(DecodeError::VolumeKeyNul)?;
    let Some((0, volume_key)) = volume.split_last() else {
        return Err(DecodeError::VolumeKeyNul);
    };
    let fd = RawFd::try_from(fd).map_err(|_| DecodeError::BadDescriptor(fd))?;
    Ok(Payload::Open {
        fd,
        flags,
        volume_key,
        cookie_key,
    })
}

impl Packet<'_> {
    /// The bytes of this message, as the kernel would lay them out: for tests and fake devices.
    ///
    /// # Panics
    ///
    /// When a key is so long that the message has no 32-bit length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        let opcode = match self.payload {
            Payload::Open {
                fd,
                flags,
                volume_key,
                cookie_key,
            } => {
                payload.reserve(OPEN_LEN + volume_key.len() + 1 + cookie_key.len());
                payload.extend(len_u32(volume_key.len() + 1).to_ne_bytes());
                payload.extend(len_u32(cookie_key.len()).to_ne_bytes());
                payload.extend(fd.to_ne_bytes());
                payload.extend(flags.to_ne_bytes());
                payload.extend(volume_key);
                payload.push(0);
                payload.extend(cookie_key);
                OP_OPEN
            }
            Payload::Close => OP_CLOSE,
            Payload::Read { off, len } => {
                payload.extend(off.to_ne_bytes());
                payload.extend(len.to_ne_bytes());
                OP_READ
            }
        };
        let total = len_u32(HEADER_LEN + payload.len());
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        for word in [self.msg_id, opcode, total, self.object_id] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(payload);
        bytes
    }
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a message is shorter than 4 GiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open<'a>(volume_key: &'a [u8], cookie_key: &'a [u8]) -> Packet<'a> {
        Packet {
            msg_id: 7,
            object_id: 9,
            payload: Payload::Open {
                fd: 5,
                flags: 0,
                volume_key,
                cookie_key,
            },
        }
    }

    fn patched(packet: &Packet<'_>, at: usize, word: u32) -> Vec<u8> {
        let mut bytes = packet.encode();
        bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        bytes
    }

    #[test]
    fn layout_is_the_uapi_headers() {
        let bytes = open(b"erofs,d", b"key").encode();
        assert_eq!(bytes.len(), 16 + 16 + 8 + 3);
        assert_eq!(bytes[16..20], 8_u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 3_u32.to_ne_bytes());
        assert_eq!(&bytes[32..], b"erofs,d\0key");
    }

    #[test]
    fn lengths_must_agree() {
        let good = open(b"erofs,d", b"key");
        let bytes = good.encode();
        assert_eq!(Packet::try_from(&bytes[..]), Ok(good));
        for cut in 0..bytes.len() {
            assert!(Packet::try_from(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Packet::try_from(&longer[..]).is_err());

        use DecodeError as E;
        let cases = [
            (
                patched(&good, 8, 42),
                E::LengthField {
                    field: 42,
                    have: 43,
                },
            ),
            (patched(&good, 4, 3), E::UnknownOpcode(3)),
            (
                patched(&good, 4, 1),
                E::PayloadLength {
                    opcode: 1,
                    have: 27,
                },
            ),
            (
                patched(&good, 4, 2),
                E::PayloadLength {
                    opcode: 2,
                    have: 27,
                },
            ),
            (patched(&good, 24, u32::MAX), E::BadDescriptor(u32::MAX)),
            (
                // The sum wraps to the right value in 32 bits.
                patched(&good, 16, u32::MAX),
                E::KeyLengths {
                    volume: u32::MAX,
                    cookie: 3,
                    have: 11,
                },
            ),
        ];
        for (bytes, error) in cases {
            assert_eq!(Packet::try_from(&bytes[..]), Err(error));
        }
        // 7 + 4: the sum is right, the NUL is not where it should be.
        let mut bytes = patched(&good, 16, 7);
        bytes[20..24].copy_from_slice(&4_u32.to_ne_bytes());
        assert_eq!(Packet::try_from(&bytes[..]), Err(E::VolumeKeyNul));
    }

    fn payloads() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, i32, u64, u64, u8)> {
        (
            proptest::collection::vec(any::<u8>(), 0..256),
            proptest::collection::vec(any::<u8>(), 0..256),
            0..i32::MAX,
            any::<u64>(),
            any::<u64>(),
            0_u8..3,
        )
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = Packet::try_from(&bytes[..]);
        }

        #[test]
        fn plausible_bytes_never_panic(
            opcode in 0_u32..4, words in proptest::collection::vec(0_u32..64, 2..24)
        ) {
            let mut all = words.clone();
            all.insert(1, opcode);
            all.insert(2, len_u32((words.len() + 2) * 4));
            let bytes: Vec<u8> = all.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let _ = Packet::try_from(&bytes[..]);
        }

        #[test]
        fn what_is_encoded_is_decoded((volume, cookie, fd, off, len, kind) in payloads()) {
            let payload = match kind {
                0 => Payload::Open { fd, flags: 0, volume_key: &volume, cookie_key: &cookie },
                1 => Payload::Close,
                _ => Payload::Read { off, len },
            };
            let packet = Packet { msg_id: 1, object_id: 2, payload };
            let bytes = packet.encode();
            prop_assert_eq!(Packet::try_from(&bytes[..]), Ok(packet));
        }
    }
}
