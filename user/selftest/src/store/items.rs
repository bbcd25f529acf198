// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is mounted and read, as a list that one process hands to another.

use std::io::BufRead;
use std::path::Path;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use ondemand_core::layout;

use crate::harness::image::BLOB;
use crate::harness::image::FILE;

/// One image under one key: how it is mounted, and what is read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The domain; without one, EROFS gives the image a volume of its own.
    pub domain: Option<Vec<u8>>,
    /// The cookie key.
    pub key: Vec<u8>,
    /// Which of the images of the selftests it is; `chunked` brings its blob.
    pub image: &'static str,
    /// Offset and length of what is read of the image's file, in bytes.
    pub spans: Vec<(usize, usize)>,
}

/// The images that an item may name, and the length of the file in each, in bytes.
const IMAGES: [(&str, usize); 4] = [
    ("small", 16 << 10),
    ("plain", 1 << 20),
    ("twin", 1 << 20),
    ("chunked", 1 << 20),
];

/// The length of the file in an image, in bytes; 0 if there is no such image.
#[must_use]
pub fn file_length(image: &str) -> usize {
    IMAGES
        .iter()
        .find(|(name, _)| *name == image)
        .map_or(0, |(_, len)| *len)
}

impl Item {
    /// One that is read from end to end.
    #[must_use]
    pub fn whole(domain: Option<&[u8]>, key: impl Into<Vec<u8>>, image: &'static str) -> Self {
        Item {
            domain: domain.map(<[u8]>::to_vec),
            key: key.into(),
            image,
            spans: vec![(0, file_length(image))],
        }
    }

    /// The same, of which only these spans are read.
    #[must_use]
    pub fn partial(mut self, spans: &[(usize, usize)]) -> Self {
        self.spans = spans.to_vec();
        self
    }

    /// Whether all of the file is read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.spans == [(0, file_length(self.image))]
    }

    /// The option string for `mount`.
    #[must_use]
    pub fn options(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(domain) = &self.domain {
            options.extend_from_slice(b"domain_id=");
            options.extend_from_slice(domain);
            options.push(b',');
        }
        options.extend_from_slice(b"fsid=");
        options.extend_from_slice(&self.key);
        if self.image == "chunked" {
            options.extend_from_slice(b",device=");
            options.extend_from_slice(BLOB.as_bytes());
        }
        options
    }

    /// The volume key that EROFS makes of it.
    #[must_use]
    pub fn volume(&self) -> Vec<u8> {
        let mut volume = b"erofs,".to_vec();
        volume.extend_from_slice(self.domain.as_ref().unwrap_or(&self.key));
        volume
    }

    /// The keys of its objects, and the image or blob that each is served from.
    #[must_use]
    pub fn objects(&self) -> Vec<(Vec<u8>, &'static str)> {
        let mut objects = vec![(self.key.clone(), self.image)];
        if self.image == "chunked" {
            objects.push((BLOB.as_bytes().to_vec(), BLOB));
        }
        objects
    }

    /// Where the object of a key of this item lies below the directory of the cache.
    ///
    /// # Errors
    ///
    /// There is no file name for the key.
    pub fn path(&self, key: &[u8]) -> Result<PathBuf> {
        use std::os::unix::ffi::OsStrExt;

        let path = layout::object_path(&self.volume(), key)
            .map_err(|errno| anyhow::anyhow!("no path for {}: {errno:?}", key.escape_ascii()))?;
        let part = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
        Ok(Path::new("cache")
            .join(part(path.volume.as_bytes()))
            .join(part(&path.fanout))
            .join(part(path.file.as_bytes())))
    }
}

/// The line that stands for an item.
#[must_use]
pub fn encode(item: &Item) -> String {
    let spans: Vec<String> = item
        .spans
        .iter()
        .map(|(off, len)| format!("{off}:{len}"))
        .collect();
    format!(
        "{} {} {}\n",
        hex(&item.options()),
        item.image,
        spans.join(",")
    )
}

/// What a line stands for, as [`encode`] makes it.
#[derive(Debug)]
pub struct Visit {
    /// For `mount`.
    pub options: Vec<u8>,
    /// The image that should be found there.
    pub image: String,
    /// What is to be read.
    pub spans: Vec<(usize, usize)>,
}

/// Reads what [`encode`] has made.
///
/// # Errors
///
/// What `read` says, or a line that is none.
pub fn decode(input: impl BufRead) -> Result<Vec<Visit>> {
    input
        .lines()
        .map(|line| {
            let line = line?;
            let fields: Vec<&str> = line.split(' ').collect();
            ensure!(fields.len() == 3, "not an item: {line}");
            Ok(Visit {
                options: unhex(fields[0])?,
                image: fields[1].to_owned(),
                spans: fields[2]
                    .split(',')
                    .filter(|span| !span.is_empty())
                    .map(|span| {
                        let (off, len) = span.split_once(':').context("not a span")?;
                        Ok((off.parse()?, len.parse()?))
                    })
                    .collect::<Result<_>>()?,
            })
        })
        .collect()
}

/// Bytes as two hexadecimal digits each.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len() % 2 == 0, "an odd number of digits");
    (0..text.len())
        .step_by(2)
        .map(|at| {
            let digits = text.get(at..at + 2).context("not ASCII")?;
            Ok(u8::from_str_radix(digits, 16)?)
        })
        .collect()
}

/// The file of a mounted image.
#[must_use]
pub fn file_at(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

#[cfg(test)]
mod lines {
    use super::*;

    #[test]
    fn an_item_comes_back_as_it_was() -> Result<()> {
        let item =
            Item::whole(Some(b"d\xff"), *b"a/\x01\xfe", "plain").partial(&[(0, 4096), (8192, 1)]);
        let visits = decode(encode(&item).as_bytes())?;
        assert_eq!(visits.len(), 1);
        assert_eq!(visits[0].options, b"domain_id=d\xff,fsid=a/\x01\xfe");
        assert_eq!(visits[0].image, "plain");
        assert_eq!(visits[0].spans, item.spans);
        let nothing = decode(encode(&item.partial(&[])).as_bytes())?;
        assert!(nothing[0].spans.is_empty());
        Ok(())
    }

    #[test]
    fn what_is_no_item_is_refused() {
        for line in [
            "",
            "6g plain 0:1",
            "616 plain 0:1",
            "61 plain 0",
            "61 plain",
        ] {
            assert!(decode(format!("{line}\n").as_bytes()).is_err(), "{line}");
        }
    }
}
