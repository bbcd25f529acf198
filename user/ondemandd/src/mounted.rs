// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which images are mounted, from `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use anyhow::Context;

/// An EROFS that was mounted over fscache.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mounted {
    /// Where.
    pub dir: PathBuf,
    /// `fsid=`: the key of the image.
    pub image: String,
    /// `domain_id=`
    pub domain: Option<String>,
    /// `device=`: the keys of its blobs.
    pub blobs: Vec<String>,
}

impl Mounted {
    /// The key of the volume that the kernel keeps its data in.
    #[must_use]
    pub fn volume_key(&self) -> String {
        format!("erofs,{}", self.domain.as_ref().unwrap_or(&self.image))
    }
}

/// What is mounted in this mount namespace.
///
/// # Errors
///
/// There is no `/proc`.
pub fn all() -> anyhow::Result<Vec<Mounted>> {
    let text = std::fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(parse).collect())
}

/// Reads a line, if it is of such a mount.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut words = line.split(|byte| *byte == b' ');
    let dir = words.nth(4)?;
    // After a word `-`: type, source, options of the file system.
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    if words.next()? != b"erofs" {
        return None;
    }
    let options = unescape(words.nth(1)?);
    let options = String::from_utf8_lossy(&options).into_owned();
    let of = |name: &'static str| {
        let options = options.split(',');
        options.filter_map(move |option| option.strip_prefix(name))
    };
    Some(Mounted {
        dir: OsString::from_vec(unescape(dir)).into(),
        image: of("fsid=").next()?.to_owned(),
        domain: of("domain_id=").next().map(str::to_owned),
        blobs: of("device=").map(str::to_owned).collect(),
    })
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => Some([a, b, c]),
            _ => None,
        };
        if let Some(digits) = digits {
            out.push(digits.iter().fold(0, |n, digit| n * 8 + (**digit - b'0')));
            rest = &after[3..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let line = b"36 25 0:33 / /mnt/a\\040b ro,relatime shared:1 - erofs none ro,user_xattr,acl,cache_strategy=readaround,domain_id=web,fsid=web/image,device=web/blob";
        let mounted = parse(line).unwrap();
        assert_eq!(mounted.dir, PathBuf::from("/mnt/a b"));
        assert_eq!(mounted.image, "web/image");
        assert_eq!(mounted.volume_key(), "erofs,web");
        assert_eq!(mounted.blobs, ["web/blob"]);
        let alone = parse(b"1 2 0:3 / / ro - erofs none ro,fsid=x").unwrap();
        assert_eq!(alone.volume_key(), "erofs,x");
        for other in [
            &b""[..],
            b"1 2 0:3 / / ro - erofs /dev/loop0 ro",
            b"1 2 0:3 / / ro - ext4 /dev/sda ro,fsid=x",
            b"1 2 0:3 / / ro",
        ] {
            assert_eq!(parse(other), None);
        }
    }

    #[test]
    fn escapes_are_octal() {
        assert_eq!(unescape(b"a\\040b\\134\\377"), b"a b\\\xff");
        assert_eq!(unescape(b"\\04\\400\\"), b"\\04\\400\\");
    }
}
