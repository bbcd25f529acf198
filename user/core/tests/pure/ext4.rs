// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an ext4 must be like for fills through memory, by its superblock and its options.

use ondemand_core::ext4::Mounted;
use ondemand_core::ext4::SUPERBLOCK_SIZE;

/// The superblock of an ext4 as `mkfs.ext4` makes it, with these default options (`tune2fs -o`) and options
/// for each mount (`tune2fs -E mount_opts=`).
fn superblock(defaults: u32, mount_options: &str) -> [u8; SUPERBLOCK_SIZE] {
    let mut bytes = [0; SUPERBLOCK_SIZE];
    bytes[0x38..0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
    bytes[0x5c..0x60].copy_from_slice(&0x3c_u32.to_le_bytes());
    bytes[0x100..0x104].copy_from_slice(&defaults.to_le_bytes());
    bytes[0x200..0x200 + mount_options.len()].copy_from_slice(mount_options.as_bytes());
    bytes
}

fn lacks(superblock: &[u8; SUPERBLOCK_SIZE], options: &str) -> Option<&'static str> {
    let mounted = Mounted {
        superblock,
        options: options.as_bytes(),
        as_ext4: true,
    };
    mounted.lacks_for_unwritten_blocks()
}

/// User attributes and access control lists, which `mkfs.ext4` makes the default.
const USUAL: u32 = 0xc;

#[test]
fn d54_the_usual_is_enough() {
    for options in [
        "",
        ",errors=remount-ro",
        ",commit=1,stripe=4",
        ",data=ordered",
        ",delalloc",
    ] {
        assert_eq!(lacks(&superblock(USUAL, ""), options), None, "{options}");
    }
    assert_eq!(lacks(&superblock(USUAL | 0x40, ""), ""), None);
}

#[test]
fn d54_each_option_that_is_shown_counts() {
    let usual = superblock(USUAL, "");
    for (options, word) in [
        (",nodelalloc", "delalloc"),
        (",nodioread_nolock", "dioread_nolock"),
        (",dioread_lock", "dioread_nolock"),
        (",data=writeback", "data=ordered"),
        (",data=journal", "data=ordered"),
        (",norecovery", "journal"),
        (",noload", "journal"),
        (",sb=8193", "superblock"),
    ] {
        let told = lacks(&usual, options);
        assert!(
            told.is_some_and(|told| told.contains(word)),
            "{options}: {told:?}"
        );
    }
}

#[test]
fn d54_what_the_superblock_says_is_not_shown() {
    for (defaults, mount_options, word) in [
        (0x20, "", "data=ordered"),
        (0x60, "", "data=ordered"),
        (0x800, "", "delalloc"),
        (0, "nodelalloc", "delalloc"),
        (0, "nobarrier,dioread_lock", "dioread_nolock"),
        (0, "delalloc,nodelalloc", "delalloc"),
        (0, "data=writeback", "data=ordered"),
        (0, "noload", "journal"),
    ] {
        let told = lacks(&superblock(USUAL | defaults, mount_options), "");
        assert!(
            told.is_some_and(|told| told.contains(word)),
            "{defaults:#x} {mount_options}: {told:?}"
        );
    }
    // Of the two the mount counts.
    assert_eq!(lacks(&superblock(USUAL | 0x800, ""), ",delalloc"), None);
    assert_eq!(lacks(&superblock(USUAL | 0x60, ""), ",data=ordered"), None);
    assert_eq!(
        lacks(&superblock(USUAL, "dioread_lock"), ",dioread_nolock"),
        None
    );
    assert!(lacks(&superblock(USUAL, "dioread_nolock"), ",dioread_lock").is_some());
}

#[test]
fn d54_without_a_journal() {
    let mut without = superblock(USUAL, "");
    without[0x5c] = 0x38;
    assert_eq!(lacks(&without, ""), Some("a journal"));
}

#[test]
fn d54_as_ext3_or_no_ext4_at_all() {
    let usual = superblock(USUAL, "");
    let as_ext3 = |options: &'static str| Mounted {
        superblock: &usual,
        options: options.as_bytes(),
        as_ext4: false,
    };
    assert!(as_ext3("").lacks_for_unwritten_blocks().is_some());
    assert_eq!(as_ext3(",delalloc").lacks_for_unwritten_blocks(), None);
    assert!(lacks(&[0; SUPERBLOCK_SIZE], "").is_some());
}

#[test]
fn d54_options_that_are_not_utf8_or_not_ended() {
    let mut full = superblock(USUAL, "");
    full[0x200..0x240].fill(0xff);
    assert_eq!(lacks(&full, ""), None);
    full[0x200..0x240].copy_from_slice(format!("{:>64}", ",nodelalloc").as_bytes());
    assert!(lacks(&full, "").is_some());
}
