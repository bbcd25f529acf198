// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory for direct I/O: whole blocks, at addresses that are multiples of a block.

use cachefiles_proto::BLOCK_SIZE;

/// One block of memory.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_SIZE]);

const _: () = assert!(align_of::<Block>() == BLOCK_SIZE && size_of::<Block>() == BLOCK_SIZE);

/// A buffer of whole, aligned blocks.
pub struct BlockBuffer {
    blocks: Vec<Block>,
}

impl BlockBuffer {
    /// A zeroed buffer of `blocks` blocks of [`BLOCK_SIZE`] bytes.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        BlockBuffer {
            blocks: vec![Block([0; BLOCK_SIZE]); blocks],
        }
    }

    /// All of the buffer.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.blocks.len() * BLOCK_SIZE;
        let start = self.blocks.as_mut_ptr().cast::<u8>();
        // SAFETY: `Block` is exactly its bytes, without padding, and the blocks of a `Vec` follow
        // one another; the result borrows `self` mutably.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

/// `len` rounded up to whole blocks, or `None` if that is more than a `u64` holds.
#[must_use]
pub fn round_up(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_is_aligned_and_whole() {
        let mut buffer = BlockBuffer::new(3);
        let bytes = buffer.bytes_mut();
        assert_eq!(bytes.len(), 3 * BLOCK_SIZE);
        assert_eq!(bytes.as_ptr().align_offset(BLOCK_SIZE), 0);
        assert!(BlockBuffer::new(0).bytes_mut().is_empty());
    }

    #[test]
    fn rounding_at_the_edges() {
        assert_eq!(round_up(0), Some(0));
        assert_eq!(round_up(1), Some(4096));
        assert_eq!(round_up(4096), Some(4096));
        assert_eq!(round_up(u64::MAX - 4095), Some(u64::MAX - 4095));
        assert_eq!(round_up(u64::MAX - 4094), None);
    }
}
