// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Whether an ext4 keeps a new block unwritten until its data is on the disk.
//!
//! Until then a reader of the file gets a hole. It does so for files with extents, with delayed allocation and
//! without the lock of direct readers (`dioread_nolock`), whose data is not journalled. Otherwise a block is
//! mapped before its data is written: if the write fails, or the power does, what that block of the disk held
//! before is the file's data. Only the journal orders the conversion of a block behind its data.
//!
//! Options are shown by ext4 where they differ from the defaults of the superblock, so both are looked at.

/// Bytes of the superblock that are looked at, and where they begin on the device.
pub const SUPERBLOCK_SIZE: usize = 1024;
/// See [`SUPERBLOCK_SIZE`].
pub const SUPERBLOCK_START: usize = 1024;

const MAGIC: usize = 0x38;
const FEATURES_COMPAT: usize = 0x5c;
const DEFAULT_OPTIONS: usize = 0x100;
const MOUNT_OPTIONS: usize = 0x200;
const MOUNT_OPTIONS_LEN: usize = 64;

const HAS_JOURNAL: u32 = 0x4;
const DEFAULT_NO_DELALLOC: u32 = 0x800;
/// The default mode of data: two bits.
const DEFAULT_MODE: u32 = 0x60;
const MODE_NONE: u32 = 0;
const MODE_ORDERED: u32 = 0x40;

/// An ext4 that is mounted.
#[derive(Clone, Copy, Debug)]
pub struct Mounted<'a> {
    /// The superblock as it is on the device.
    pub superblock: &'a [u8; SUPERBLOCK_SIZE],
    /// What it shows as its options: separated by commas.
    pub options: &'a [u8],
    /// It was mounted as `ext4`, not as `ext2` or `ext3`, for which it has other defaults.
    pub as_ext4: bool,
}

impl Mounted<'_> {
    /// What is missing for blocks to stay unwritten until their data is on the disk, in words; `None` if nothing.
    #[must_use]
    pub fn lacks_for_unwritten_blocks(&self) -> Option<&'static str> {
        if self.word(MAGIC) & 0xffff != 0xef53 || self.shows(b"sb=") {
            return Some("a superblock in its usual place");
        }
        if self.word(FEATURES_COMPAT) & HAS_JOURNAL == 0
            || self.chosen(&[], &[b"norecovery", b"noload"]).is_some()
        {
            return Some("a journal");
        }
        let delalloc = self
            .chosen(&[b"delalloc"], &[b"nodelalloc"])
            .unwrap_or(self.as_ext4 && self.word(DEFAULT_OPTIONS) & DEFAULT_NO_DELALLOC == 0);
        if !delalloc {
            return Some("delayed allocation (delalloc)");
        }
        let unwritten = self
            .chosen(
                &[b"dioread_nolock"],
                &[b"nodioread_nolock", b"dioread_lock"],
            )
            .unwrap_or(true);
        if !unwritten {
            return Some("unwritten extents for new blocks (dioread_nolock)");
        }
        let ordered = self
            .chosen(&[b"data=ordered"], &[b"data=journal", b"data=writeback"])
            .unwrap_or_else(|| {
                matches!(
                    self.word(DEFAULT_OPTIONS) & DEFAULT_MODE,
                    MODE_NONE | MODE_ORDERED
                )
            });
        if !ordered {
            return Some("data=ordered");
        }
        None
    }

    /// Whether the mount, or else the superblock, names one of `on` or one of `off`.
    fn chosen(&self, on: &[&[u8]], off: &[&[u8]]) -> Option<bool> {
        let meant = |option: &[u8]| match option {
            option if on.contains(&option) => Some(true),
            option if off.contains(&option) => Some(false),
            _ => None,
        };
        let in_superblock = self
            .superblock
            .get(MOUNT_OPTIONS..MOUNT_OPTIONS + MOUNT_OPTIONS_LEN)
            .and_then(|text| text.split(|byte| *byte == 0).next())
            .unwrap_or_default();
        options_of(self.options)
            .rev()
            .find_map(meant)
            .or_else(|| options_of(in_superblock).rev().find_map(meant))
    }

    fn shows(&self, prefix: &[u8]) -> bool {
        options_of(self.options).any(|option| option.starts_with(prefix))
    }

    /// A little-endian word of the superblock.
    fn word(&self, at: usize) -> u32 {
        match self.superblock.get(at..at + 4) {
            Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
            _ => 0,
        }
    }
}

fn options_of(text: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    text.split(|byte| *byte == b',')
}
