// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The messages as they lie in the daemon's buffer.
//!
//! UAPI header: `abi/cachefiles.h` (a copy of `include/uapi/linux/cachefiles.h`). Numbers are in
//! the machine's byte order. Sizes are checked against the header when the module is built.

/// Bytes of the header: msg_id, opcode, len, object_id.
pub const HEADER: usize = 16;
/// Bytes of an OPEN's fixed part: volume_key_size, cookie_key_size, fd, flags.
pub const OPEN_BODY: usize = 16;
/// Bytes of a READ's body: off, len.
pub const READ_BODY: usize = 16;
/// The largest message: an OPEN with a volume key of 255 bytes and its NUL and a cookie key of 255.
pub const MAX: usize = HEADER + OPEN_BODY + 256 + 255;

const OP_OPEN: u32 = 0;
const OP_CLOSE: u32 = 1;
const OP_READ: u32 = 2;

/// A message, for encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A blob is to be opened.
    Open {
        /// The anonymous fd, already reserved in the reading process.
        fd: i32,
        /// The volume's key without its NUL, at most 255 bytes.
        volume_key: &'a [u8],
        /// The cookie's key: any bytes, at most 255.
        cookie_key: &'a [u8],
    },
    /// The object's fd is to be closed.
    Close,
    /// A range is to be filled.
    Read {
        /// First byte.
        off: u64,
        /// Number of bytes.
        len: u64,
    },
}

impl Message<'_> {
    /// Bytes that the message takes.
    pub fn size(&self) -> usize {
        match self {
            Message::Open {
                volume_key,
                cookie_key,
                ..
            } => HEADER + OPEN_BODY + volume_key.len() + 1 + cookie_key.len(),
            Message::Close => HEADER,
            Message::Read { .. } => HEADER + READ_BODY,
        }
    }

    fn opcode(&self) -> u32 {
        match self {
            Message::Open { .. } => OP_OPEN,
            Message::Close => OP_CLOSE,
            Message::Read { .. } => OP_READ,
        }
    }

    /// Writes the message to the front of `buffer` and tells its bytes; `None` if it does not fit.
    pub fn encode<'b>(
        &self,
        msg_id: u32,
        object_id: u32,
        buffer: &'b mut [u8],
    ) -> Option<&'b [u8]> {
        let size = self.size();
        let mut out = Writer {
            rest: buffer.get_mut(..size)?,
        };
        out.put(&msg_id.to_ne_bytes())?;
        out.put(&self.opcode().to_ne_bytes())?;
        out.put(&u32::try_from(size).ok()?.to_ne_bytes())?;
        out.put(&object_id.to_ne_bytes())?;
        match self {
            Message::Open {
                fd,
                volume_key,
                cookie_key,
            } => {
                let volume_key_size = u32::try_from(volume_key.len()).ok()?.checked_add(1)?;
                let cookie_key_size = u32::try_from(cookie_key.len()).ok()?;
                out.put(&volume_key_size.to_ne_bytes())?;
                out.put(&cookie_key_size.to_ne_bytes())?;
                out.put(&fd.to_ne_bytes())?;
                out.put(&0u32.to_ne_bytes())?;
                out.put(volume_key)?;
                out.put(&[0])?;
                out.put(cookie_key)?;
            }
            Message::Close => {}
            Message::Read { off, len } => {
                out.put(&off.to_ne_bytes())?;
                out.put(&len.to_ne_bytes())?;
            }
        }
        buffer.get(..size)
    }
}

/// Fills a buffer from the front.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let rest = core::mem::take(&mut self.rest);
        if bytes.len() > rest.len() {
            return None;
        }
        let (front, back) = rest.split_at_mut(bytes.len());
        front.copy_from_slice(bytes);
        self.rest = back;
        Some(())
    }
}
