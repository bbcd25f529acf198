// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a store holds: every name, kind, size, mode, owner, attribute, and where data lies.
//!
//! Nothing is read of a file, for that would make data of its holes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::items::hex;

/// The attribute that says what a file of the store holds.
pub const ATTRIBUTE: &str = "user.CacheFiles.cache";

/// The attribute that says which file it is, and which version it holds.
pub const IDENTITY: &str = "user.CacheFiles.identity";

/// One file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// In bytes; 0 for a directory, whose size is the file system's affair.
    pub size: u64,
    /// Every extended attribute.
    pub attributes: BTreeMap<String, Vec<u8>>,
    /// Begin and end of each stretch of data, in bytes.
    pub data: Vec<(u64, u64)>,
}

impl Entry {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// How much data it holds, in bytes.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.data.iter().map(|(from, to)| to - from).sum()
    }

    /// Whether some of a range is data.
    #[must_use]
    pub fn overlaps(&self, off: u64, len: u64) -> bool {
        self.data
            .iter()
            .any(|&(from, to)| from < off + len && off < to)
    }

    /// Whether all of a range is data.
    #[must_use]
    pub fn covers(&self, off: u64, len: u64) -> bool {
        self.data
            .iter()
            .any(|&(from, to)| from <= off && off + len <= to)
    }

    /// The object's size as the attribute has it, in bytes.
    #[must_use]
    pub fn object_size(&self) -> Option<u64> {
        let value = self.attributes.get(ATTRIBUTE)?;
        Some(u64::from_be_bytes(*value.first_chunk()?))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uid, gid) = self.owner;
        write!(f, "{:o} {uid}:{gid} {}", self.mode, self.size)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}={}", hex(value))?;
        }
        for (from, to) in &self.data {
            write!(f, " {from}-{to}")?;
        }
        Ok(())
    }
}

/// What is below a directory, by path relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(pub BTreeMap<PathBuf, Entry>);

impl Listing {
    /// Lists a store.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn of(root: &Path) -> Result<Self> {
        let mut entries = BTreeMap::new();
        walk(root, Path::new(""), &mut entries)?;
        Ok(Listing(entries))
    }

    /// The entry of a path.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&Entry> {
        self.0.get(path)
    }

    /// The files, with their paths.
    pub fn files(&self) -> impl Iterator<Item = (&PathBuf, &Entry)> {
        self.0.iter().filter(|(_, entry)| !entry.is_dir())
    }

    /// Takes out the fan-out directories that hold nothing; returns how many there were. One module
    /// makes all 256 of a volume at once, another each when it is needed.
    pub fn remove_empty_fanout(&mut self) -> usize {
        let parents: BTreeSet<PathBuf> = self
            .0
            .keys()
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect();
        let before = self.0.len();
        self.0
            .retain(|path, entry| !entry.is_dir() || !is_fanout(path) || parents.contains(path));
        before - self.0.len()
    }

    /// Takes out the attribute that one module alone has; returns how many files had it.
    pub fn remove_identities(&mut self) -> usize {
        let entries = self.0.values_mut();
        entries
            .filter_map(|entry| entry.attributes.remove(IDENTITY))
            .count()
    }

    /// The differences to another listing, a line each: `-` is here only, `+` there only.
    #[must_use]
    pub fn differences(&self, other: &Listing) -> Vec<String> {
        let line = |sign: char, path: &Path, entry: &Entry| {
            let path = path.as_os_str().as_bytes().escape_ascii();
            format!("{sign}{path} {entry}")
        };
        let mut lines = Vec::new();
        for (path, entry) in &self.0 {
            if other.0.get(path) != Some(entry) {
                lines.push(line('-', path, entry));
            }
        }
        for (path, entry) in &other.0 {
            if self.0.get(path) != Some(entry) {
                lines.push(line('+', path, entry));
            }
        }
        lines.sort_by(|a, b| a.get(1..).cmp(&b.get(1..)));
        lines
    }
}

/// Whether a path is that of a fan-out directory: `cache/I.../@xx`.
fn is_fanout(path: &Path) -> bool {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    path.starts_with("cache") && path.components().count() == 3 && name.starts_with(b"@")
}

fn walk(root: &Path, below: &Path, entries: &mut BTreeMap<PathBuf, Entry>) -> Result<()> {
    for found in fs::read_dir(root.join(below))? {
        let path = below.join(found?.file_name());
        let entry = entry(&root.join(&path)).with_context(|| path.display().to_string())?;
        let descend = entry.is_dir();
        entries.insert(path.clone(), entry);
        if descend {
            walk(root, &path, entries)?;
        }
    }
    Ok(())
}

fn entry(path: &Path) -> Result<Entry> {
    let metadata = fs::symlink_metadata(path)?;
    let file = metadata.is_file();
    Ok(Entry {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        size: if file { metadata.len() } else { 0 },
        attributes: attributes(path)?,
        data: if file { data(path)? } else { Vec::new() },
    })
}

fn attributes(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names)?;
    names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(path, &name, &mut value)?;
            value.truncate(len);
            Ok((name, value))
        })
        .collect()
}

/// Where a file has data, neighbours joined.
fn data(path: &Path) -> Result<Vec<(u64, u64)>> {
    let file = File::open(path)?;
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    loop {
        let from = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(from) => from,
            Err(Errno::NXIO) => return Ok(found),
            Err(errno) => return Err(errno.into()),
        };
        at = rustix::fs::seek(&file, SeekFrom::Hole(from))?;
        match found.last_mut() {
            Some((_, end)) if *end == from => *end = at,
            _ => found.push((from, at)),
        }
    }
}

#[cfg(test)]
mod comparing {
    use super::*;

    fn store() -> Result<tempfile::TempDir> {
        let dir = tempfile::tempdir()?;
        for fanout in ["@00", "@a7"] {
            fs::create_dir_all(dir.path().join("cache/Iv").join(fanout))?;
        }
        fs::create_dir(dir.path().join("graveyard"))?;
        fs::write(dir.path().join("cache/Iv/@a7/Dx"), "x")?;
        Ok(dir)
    }

    #[test]
    fn equal_stores_have_no_differences_and_empty_fanout_is_told_apart() -> Result<()> {
        let (one, other) = (store()?, store()?);
        fs::remove_dir(other.path().join("cache/Iv/@00"))?;
        let (mut one, mut other) = (Listing::of(one.path())?, Listing::of(other.path())?);
        assert_eq!(one.differences(&other).len(), 1);
        assert_eq!(
            (one.remove_empty_fanout(), other.remove_empty_fanout()),
            (1, 0)
        );
        assert_eq!(one.differences(&other), [""; 0]);
        // The directories that hold something, and those that are no fan-out, are still there.
        assert_eq!(other.0.len(), 5);
        Ok(())
    }

    #[test]
    fn every_kind_of_difference_is_seen() -> Result<()> {
        use std::os::unix::fs::PermissionsExt;

        fn change(number: u32, root: &Path) -> std::io::Result<()> {
            let file = root.join("cache/Iv/@a7/Dx");
            match number {
                0 => fs::remove_file(file),
                1 => fs::write(file, "longer"),
                2 => fs::set_permissions(file, fs::Permissions::from_mode(0o640)),
                _ => fs::write(root.join("cache/Iv/@00/Dx"), "x"),
            }
        }
        for number in 0..4 {
            let (one, other) = (store()?, store()?);
            change(number, other.path())?;
            let (one, other) = (Listing::of(one.path())?, Listing::of(other.path())?);
            assert!(!one.differences(&other).is_empty(), "change {number}");
        }
        Ok(())
    }

    #[test]
    fn ranges_are_compared_with_the_map() {
        let entry = Entry {
            mode: libc::S_IFREG,
            owner: (0, 0),
            size: 16384,
            attributes: BTreeMap::new(),
            data: vec![(4096, 8192), (12288, 16384)],
        };
        assert_eq!(entry.stored(), 8192);
        for (off, len, overlaps, covers) in [
            (0, 4096, false, false),
            (0, 4097, true, false),
            (4096, 4096, true, true),
            (8192, 4096, false, false),
            (8191, 1, true, true),
            (4096, 12288, true, false),
        ] {
            assert_eq!(entry.overlaps(off, len), overlaps, "{off} {len}");
            assert_eq!(entry.covers(off, len), covers, "{off} {len}");
        }
    }
}
