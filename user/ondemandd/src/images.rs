// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much the cache holds of what is mounted: looked up in the store, which is the truth whether a daemon
//! runs or not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use crate::mounted;
use crate::mounted::Mounted;
use crate::record;
use crate::record::Name;
use crate::record::Record;

/// Width of a bar.
const BAR: u64 = 20;
/// A block of `st_blocks`.
const STAT_BLOCK: u64 = 512;

/// A mounted image.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Image {
    pub(crate) image: String,
    pub(crate) domain: Option<String>,
    pub(crate) dir: PathBuf,
    /// The image itself, then its blobs.
    pub(crate) objects: Vec<Cached>,
}

/// How much the cache holds of an image or blob; in bytes, and in whole blocks.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Cached {
    pub(crate) key: String,
    /// Unknown until there is a file of it in the store.
    pub(crate) total: Option<u64>,
    pub(crate) cached: u64,
    /// The source has another version now than what is mounted: what that was and is, as far as somebody has
    /// wanted what is not cached.
    pub(crate) changed: Option<String>,
}

impl Image {
    /// How much there is of image and blobs together, and how much of it is cached, in bytes; what is not in the
    /// store counts as nothing.
    pub(crate) fn sum(&self) -> (u64, u64) {
        self.objects.iter().fold((0, 0), |(cached, total), object| {
            (
                cached + object.cached,
                total + object.total.unwrap_or_default(),
            )
        })
    }
}

/// The images that are mounted in this mount namespace; `cache` is the directory of the cache, if it is known.
///
/// # Errors
///
/// There is no `/proc`.
pub(crate) fn all(cache: Option<&Path>) -> anyhow::Result<Vec<Image>> {
    let images = mounted::all()?;
    // One that cannot be read is told by the daemon.
    let record = match images.is_empty() {
        true => None,
        false => cache.and_then(|cache| Record::look(&cache.join(record::FILE)).ok()),
    };
    let record = record.unwrap_or_default();
    let images = images.into_iter();
    Ok(images.map(|image| look_up(cache, &record, image)).collect())
}

fn look_up(cache: Option<&Path>, record: &record::State, mounted: Mounted) -> Image {
    let volume = mounted.volume_key();
    let keys = [&mounted.image].into_iter().chain(&mounted.blobs);
    let objects = keys.map(|key| {
        let file = cache.and_then(|cache| file_of(cache, &volume, key));
        let metadata = file.and_then(|file| fs::symlink_metadata(file).ok());
        let entry = record
            .entries
            .get(&Name::of(volume.as_bytes(), key.as_bytes()));
        Cached {
            changed: entry.and_then(|entry| entry.changed.clone()),
            key: key.clone(),
            total: metadata.as_ref().map(MetadataExt::size),
            // What is preallocated or of the file system's own does not count.
            cached: metadata.map_or(0, |it| (it.blocks() * STAT_BLOCK).min(it.size())),
        }
    });
    Image {
        objects: objects.collect(),
        image: mounted.image,
        domain: mounted.domain,
        dir: mounted.dir,
    }
}

/// Where the store has an object.
fn file_of(cache: &Path, volume: &str, key: &str) -> Option<PathBuf> {
    let path = ondemand_core::layout::object_path(volume.as_bytes(), key.as_bytes()).ok()?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let volume = text(path.volume.as_bytes())?;
    let (fanout, file) = (text(&path.fanout)?, text(path.file.as_bytes())?);
    Some(cache.join("cache").join(volume).join(fanout).join(file))
}

/// A bar, and percent; full only if all is there.
pub(crate) fn bar(cached: u64, total: u64) -> (String, u64) {
    let part = |of: u64| match total {
        0 => of,
        _ => u64::try_from(u128::from(cached) * u128::from(of) / u128::from(total)).unwrap_or(of),
    };
    let full = usize::try_from(part(BAR).min(BAR)).unwrap_or(0);
    let width = usize::try_from(BAR).unwrap_or(0);
    let bar = format!("[{}{}]", "#".repeat(full), ".".repeat(width - full));
    (bar, part(100).min(100))
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn cached(image: &str, cached: u64, total: Option<u64>) -> Image {
        Image {
            image: image.to_owned(),
            domain: Some("web".to_owned()),
            dir: "/mnt".into(),
            objects: vec![Cached {
                key: image.to_owned(),
                total,
                cached,
                changed: None,
            }],
        }
    }

    fn image() -> Mounted {
        Mounted {
            dir: "/mnt".into(),
            image: "web/image".into(),
            domain: Some("web".into()),
            blobs: vec!["blob".into()],
        }
    }

    #[test]
    fn what_is_cached_is_looked_up_in_the_store() {
        let root = tempfile::tempdir().unwrap();
        let path = file_of(root.path(), "erofs,web", "web/image").unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let name = Name::of(b"erofs,web", b"blob");
        let entry = record::Entry {
            token: cachefiles_proto::Token::new(&[1]).unwrap(),
            size: 1,
            sole: true,
            manifest: false,
            what: "new".into(),
            changed: Some("was old, is new".into()),
        };
        let record = record::State {
            entries: [(name, entry)].into(),
            carried: None,
        };
        let image = look_up(Some(root.path()), &record, image());
        assert_eq!(image.objects[0].changed, None);
        assert_eq!(image.objects[1].changed.as_deref(), Some("was old, is new"));
        assert_eq!(image.objects[0].total, Some(1 << 20));
        assert_eq!(image.objects[0].cached, 0);
        assert_eq!(image.objects[1].total, None);
        assert_eq!(image.sum(), (0, 1 << 20));
    }

    #[test]
    fn a_bar_is_full_when_all_is_there() {
        assert_eq!(bar(0, 10).1, 0);
        assert_eq!(bar(999_999, 1_000_000).1, 99);
        assert!(bar(999_999, 1_000_000).0.contains('.'));
        assert_eq!(bar(10, 10), (format!("[{}]", "#".repeat(20)), 100));
        assert_eq!(bar(0, 0).1, 100);
        assert_eq!(bar(u64::MAX, u64::MAX).1, 100);
    }
}
