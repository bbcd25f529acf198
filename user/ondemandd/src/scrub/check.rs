// SPDX-License-Identifier: MIT OR Apache-2.0

//! Holding a stored file against a manifest.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::Advice;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::block;
use crate::cull::oldest::Place;
use crate::cull::store::Store;
use crate::manifest::Manifest;

/// What was found.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Checked {
    /// Chunks that were held against the manifest.
    pub(super) chunks: u64,
    /// Bytes that are cached.
    pub(super) cached: u64,
    /// Chunks that do not fit, as ranges of bytes.
    pub(super) wrong: Vec<Range<u64>>,
    /// Chunks that are there in part.
    pub(super) partial: Vec<Range<u64>>,
}

/// Opens the stored file of an object; `None` if there is none.
pub(super) fn open(store: &Store, place: &Place) -> Result<Option<File>, Errno> {
    let opened = store.directory_of(place).and_then(|dir| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, &place.name, flags, Mode::empty())
    });
    match opened {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Reads all chunks that are there from the disk, and tells how far it has come, in bytes. A file of another size
/// than the manifest's has no chunk that is right.
pub(super) fn check(
    file: &File,
    manifest: &Manifest,
    mut at: impl FnMut(u64),
) -> io::Result<Checked> {
    let mut checked = Checked::default();
    let size = manifest.size();
    let stored = file.metadata()?.len();
    if Some(stored) != block::round_up(size) {
        checked.wrong.push(0..stored);
        return Ok(checked);
    }
    // What is in memory says nothing about the disk.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
    let chunk = u64::from(manifest.chunk());
    let mut buffer = vec![0; usize::try_from(chunk).unwrap_or(usize::MAX)];
    let mut start = 0;
    while start < size {
        let Some(data) = seek(file, SeekFrom::Data(start))? else {
            break;
        };
        start = (data - data % chunk).max(start);
        at(start.min(size));
        let range = start..start.saturating_add(chunk).min(size);
        start = range.end;
        let present = present_in(file, &range)?;
        checked.cached += present;
        if present < range.end - range.start {
            checked.partial.push(range);
            continue;
        }
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let buffer = &mut buffer[..len];
        checked.chunks += 1;
        // What the disk cannot read is as good as wrong.
        let is_right = match file.read_exact_at(buffer, range.start) {
            Ok(()) => manifest.fits(range.start, buffer),
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => false,
            Err(error) => return Err(error),
        };
        if !is_right {
            checked.wrong.push(range);
        }
    }
    at(size);
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
    Ok(checked)
}

/// How many bytes of a range are there.
fn present_in(file: &File, range: &Range<u64>) -> Result<u64, Errno> {
    let mut present = 0;
    let mut at = range.start;
    while at < range.end {
        let Some(data) = seek(file, SeekFrom::Data(at))? else {
            break;
        };
        if data >= range.end {
            break;
        }
        let hole = seek(file, SeekFrom::Hole(data))?.unwrap_or(range.end);
        let end = hole.min(range.end);
        present += end - data;
        at = end;
    }
    Ok(present)
}

fn seek(file: &File, to: SeekFrom) -> Result<Option<u64>, Errno> {
    match rustix::fs::seek(file, to) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest;
    use crate::source::hostile::blob;

    const CHUNK: u32 = 8192;

    pub(in crate::scrub) fn manifest_of(data: &[u8]) -> Manifest {
        let sums = data.chunks(CHUNK as usize).map(manifest::sum).collect();
        Manifest::new(data.len() as u64, CHUNK, sums).unwrap()
    }

    /// A file that has these blocks of the data and no others; whether the file system tells holes.
    fn stored(data: &[u8], blocks: &[bool]) -> (File, bool) {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let all = data.len() as u64;
        file.set_len(block::round_up(all).unwrap()).unwrap();
        for (index, block) in data.chunks(4096).enumerate() {
            if blocks.get(index).is_some_and(|it| *it) {
                let mut whole = block.to_vec();
                whole.resize(4096, 0);
                file.write_all_at(&whole, index as u64 * 4096).unwrap();
            }
        }
        let probe = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        probe.set_len(8192).unwrap();
        (file, seek(&probe, SeekFrom::Data(0)) == Ok(None))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn each_chunk_that_is_there_is_checked(
            len in 1..60_000_usize,
            blocks in prop::collection::vec(any::<bool>(), 16),
            wrong in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let data = blob(len);
            let manifest = manifest_of(&data);
            let mut copy = data.clone();
            let wrong = wrong.map(|index| index.index(len));
            if let Some(wrong) = wrong {
                copy[wrong] ^= 2;
            }
            let (file, knows_holes) = stored(&copy, &blocks);
            prop_assume!(knows_holes);
            let mut last = 0;
            let checked = check(&file, &manifest, |at| {
                assert!(at >= last);
                last = at;
            }).unwrap();
            prop_assert_eq!(last, len as u64);
            let mut expected = Checked::default();
            for start in (0..len).step_by(CHUNK as usize) {
                let end = (start + CHUNK as usize).min(len);
                let range = start as u64..end as u64;
                let first = start / 4096;
                let all = (end - start).div_ceil(4096);
                let there: Vec<usize> = (first..first + all).filter(|it| blocks[*it]).collect();
                let bytes: usize = there.iter().map(|it| ((it + 1) * 4096).min(end) - it * 4096).sum();
                expected.cached += bytes as u64;
                if there.len() == all {
                    expected.chunks += 1;
                    if wrong.is_some_and(|it| (start..end).contains(&it)) {
                        expected.wrong.push(range);
                    }
                } else if !there.is_empty() {
                    expected.partial.push(range);
                }
            }
            prop_assert_eq!(checked, expected);
        }
    }

    #[test]
    fn a_file_of_another_size_is_wrong_as_a_whole() {
        let data = [1; 10_000];
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let checked = check(&file, &manifest_of(&data), |_| {}).unwrap();
        assert_eq!(checked.chunks, 0);
        let wrong: Vec<_> = checked.wrong.iter().map(|it| (it.start, it.end)).collect();
        assert_eq!(wrong, [(0, 8192)]);
    }
}
