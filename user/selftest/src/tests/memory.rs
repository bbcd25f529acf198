// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where in the daemon's memory a direct fill may come from: wherever the file system says, not at whole pages alone.
//!
//! How a disk wants memory aligned is its own: the part `selftests-stores` of the soak runs
//! these tests on NVMe and SCSI disks, with sectors of 512 and of 4096 bytes.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::fs::AtFlags;
use rustix::fs::StatxFlags;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::same;
use crate::harness::skip;
use crate::harness::Context;
use crate::harness::SmallDisk;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d57_memory_of_any_address",
        "memory that is aligned as the disk wants it, and refused",
        of_any_address,
    ),
    Test::new(
        "d57_memory_sectors_of_4096",
        "the same, where it is aligned to less than a sector",
        sectors_of_4096,
    ),
];

const PAGE: usize = 4096;
/// Where in the image is written, each time elsewhere, and so much: it is direct in each mode.
const FIRST: usize = 256 << 10;
const LEN: usize = 64 << 10;

fn of_any_address(t: &Context) -> Result<()> {
    fills(t, &t.new_dir()?)
}

fn sectors_of_4096(t: &Context) -> Result<()> {
    let disk = SmallDisk::with_sectors(t, 64, 4096)?;
    fills(t, &disk.cache_dir()?)
}

/// The memory that the file system of a file asks for with O_DIRECT: `stx_dio_mem_align`.
fn alignment(file: &Path) -> Result<usize> {
    let told = rustix::fs::statx(
        rustix::fs::CWD,
        file,
        AtFlags::empty(),
        StatxFlags::DIOALIGN,
    )?;
    if told.stx_dio_mem_align == 0 {
        return skip("the file system does not tell what memory it wants");
    }
    Ok(usize::try_from(told.stx_dio_mem_align)?)
}

/// `len` bytes of memory that begin so many bytes behind a page.
struct Memory {
    bytes: Vec<u8>,
    start: usize,
}

impl Memory {
    fn new(behind_page: usize, contents: &[u8]) -> Self {
        let mut bytes = vec![0; contents.len() + 2 * PAGE];
        let start = bytes.as_ptr().align_offset(PAGE) + behind_page;
        bytes[start..start + contents.len()].copy_from_slice(contents);
        Memory { bytes, start }
    }

    fn get(&self, len: usize) -> &[u8] {
        &self.bytes[self.start..self.start + len]
    }
}

fn fills(t: &Context, dir: &Path) -> Result<()> {
    let mut daemon = t.daemon_with(dir, &[], &["plain"])?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let image = t.images.get("plain")?;
    let beside = dir.with_extension("probe");
    File::create(&beside)?;
    let align = alignment(&beside)?;
    println!("memory is to be aligned to {align} bytes");
    let (_, object) = daemon.open.first_key_value().context("not open")?;

    let at_image = |place: usize| u64::try_from(FIRST + place);
    let offsets = [0, align, 3 * align, 512, 2048, PAGE - align];
    for (number, offset) in offsets.into_iter().enumerate() {
        let (place, offset) = (at_image(number * LEN)?, offset % PAGE);
        let memory = Memory::new(offset, image.range(place, LEN as u64));
        let written = object
            .file
            .write_at(memory.get(LEN), place)
            .with_context(|| format!("from {offset} bytes behind a page"))?;
        ensure!(written == LEN, "{offset}: {written} bytes were written");
    }

    // In parts, each as the disk wants it: 64 KiB from two places.
    let place = at_image(offsets.len() * LEN)?;
    let data = image.range(place, LEN as u64);
    let (one, other) = (
        Memory::new(align % PAGE, &data[..PAGE]),
        Memory::new((3 * align) % PAGE, &data[PAGE..]),
    );
    let parts = [one.get(PAGE), other.get(LEN - PAGE)].map(std::io::IoSlice::new);
    let written = rustix::io::pwritev(object.file.as_fd(), &parts, place).context("in parts")?;
    ensure!(written == LEN, "{written} bytes of the parts were written");

    if align > 1 {
        let memory = Memory::new(align / 2, image.range(at_image(0)?, LEN as u64));
        let refused = rustix::io::pwrite(object.file.as_fd(), memory.get(LEN), at_image(0)?);
        ensure!(
            refused == Err(Errno::INVAL),
            "memory that the disk does not want: {refused:?}"
        );
    }

    daemon.log.clear();
    drop_caches()?;
    let contents = t.images.contents("plain")?;
    let mut reader = t.block_reader(&at, 0, contents.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &contents)?;
    let filled = at_image(0)?..at_image((offsets.len() + 1) * LEN)?;
    let reads = daemon.reads();
    ensure!(
        !reads
            .iter()
            .any(|(start, len)| *start < filled.end && start + len > filled.start),
        "what was filled was asked for: {reads:?}"
    );
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    Ok(())
}
