// SPDX-License-Identifier: MIT OR Apache-2.0

//! A large file whose bytes follow from a seed: stretches that do not compress
//! at all alternate with stretches that compress very well, so that clusters of
//! a compressed image have every length.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Writes `random` MiB of noise and `text` MiB of repetitive text to `path`, in
/// stretches of 1 KiB to 1 MiB.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(path: &Path, seed: u64, random: u64, text: u64) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut left = [random << 20, text << 20];
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut kind = 0;
    let mut line = 0_u64;
    while left[0] + left[1] > 0 {
        let stretch = rng.random_range(1_u64 << 10..=1 << 20).min(left[kind]);
        let mut bytes = vec![0; usize::try_from(stretch)?];
        if kind == 0 {
            rng.fill_bytes(&mut bytes);
        } else {
            let mut rest = bytes.as_mut_slice();
            while !rest.is_empty() {
                line += 1;
                let text = format!("{line:016x} a line that differs little from the last\n");
                let n = text.len().min(rest.len());
                rest[..n].copy_from_slice(&text.as_bytes()[..n]);
                rest = &mut rest[n..];
            }
        }
        out.write_all(&bytes)?;
        left[kind] -= stretch;
        kind = 1 - kind;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn same_seed_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (
            dir.path().join("a"),
            dir.path().join("b"),
            dir.path().join("c"),
        );
        super::write(&a, 1, 2, 1).unwrap();
        super::write(&b, 1, 2, 1).unwrap();
        super::write(&c, 2, 2, 1).unwrap();
        let (a, b, c) = (
            std::fs::read(a).unwrap(),
            std::fs::read(b).unwrap(),
            std::fs::read(c).unwrap(),
        );
        assert_eq!(a.len(), 3 << 20);
        assert!(a == b && a != c);
    }
}
