// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether a cache can be kept in a directory.

use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SeekFrom;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Check;
use crate::block::BlockBuffer;
use crate::limits::Free;

/// What there is to say about the directory, or about where it would be made.
pub(super) fn look_at(dir: &Path) -> Vec<Check> {
    let name = "cache";
    let existing = dir.ancestors().find(|dir| dir.is_dir());
    let Some(existing) = existing else {
        let found = format!("{}: no such place", dir.display());
        return vec![Check::bad(name, found, "make the directory")];
    };
    let lacks = lacks(existing);
    let mut checks = vec![match lacks {
        Ok(None) if existing == dir => Check::good(name, dir.display().to_string()),
        Ok(None) => Check::good(name, format!("{} will be made", dir.display())),
        Ok(Some(what)) => Check::bad(
            name,
            format!("the file system of {} lacks {what}", existing.display()),
            "use a directory on ext4, XFS or Btrfs",
        ),
        Err(errno) => Check::bad(
            name,
            format!("{}: {errno}", existing.display()),
            "the daemon must be able to write there",
        ),
    }];
    if let Ok(stat) = rustix::fs::statvfs(existing) {
        let free = Free::of(&stat);
        let percent = |free: u64, all: u64| free.saturating_mul(100).checked_div(all);
        // Btrfs counts no files.
        let blocks = percent(free.blocks, stat.f_blocks).unwrap_or(0);
        let files = percent(free.files, stat.f_files).unwrap_or(100);
        let found = format!("{blocks} % of the blocks and {files} % of the files are free");
        checks.push(if blocks.min(files) < 7 {
            let advice =
                "little is cached below 7 % and nothing below 1 % (--brun, --bstop); make room";
            Check::note("space", found, advice)
        } else {
            Check::good("space", found)
        });
    }
    checks
}

/// What the kernel wants of a cache's file system, and this one does not have.
fn lacks(dir: &Path) -> Result<Option<&'static str>, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = match rustix::fs::open(dir, flags | OFlags::DIRECT, mode) {
        Ok(file) => file,
        Err(Errno::INVAL) => return Ok(Some("O_DIRECT")),
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => return Ok(Some("O_TMPFILE")),
        Err(errno) => return Err(errno),
    };
    let xattr = rustix::fs::fsetxattr(&file, "user.ondemandd", b"x", XattrFlags::empty());
    match xattr {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Some("extended attributes")),
        Err(errno) => return Err(errno),
    }
    // A hole of a megabyte before one block.
    let at = 1 << 20;
    match rustix::io::pwrite(&file, BlockBuffer::new(1).bytes_mut(), at) {
        Ok(_) => {}
        Err(Errno::INVAL) => return Ok(Some("O_DIRECT in blocks of 4096 bytes")),
        Err(errno) => return Err(errno),
    }
    match rustix::fs::seek(&file, SeekFrom::Data(0)) {
        Ok(data) if data > 0 => Ok(None),
        Ok(_) | Err(Errno::INVAL) => Ok(Some("SEEK_HOLE that tells holes from data")),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_cache_is_tried_out_and_left_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let checks = look_at(&root.path().join("not/yet"));
        assert!(!checks.is_empty());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        // /proc knows nothing of it all.
        assert_eq!(look_at(Path::new("/proc"))[0].verdict, Verdict::Bad);
    }
}
