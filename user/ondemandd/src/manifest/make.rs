// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd manifest IMAGE`: writes `IMAGE.manifest`.

use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde::Serialize;

use super::sum;
use super::Manifest;
use super::LONGEST;
use super::SUFFIX;
use crate::cli;

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    image: &'a Path,
    manifest: &'a Path,
    size: u64,
    chunk: u32,
    chunks: usize,
}

/// Makes the manifest of an image, and puts it beside it as a whole.
///
/// # Errors
///
/// The image cannot be read, changes its size meanwhile, or makes a manifest that is too long; the
/// manifest cannot be written.
pub fn run(args: &cli::Manifest) -> anyhow::Result<()> {
    let image = &args.image;
    let manifest = make(image, args.chunk)?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => beside(image),
    };
    write(&path, manifest.to_text().as_bytes())?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let report = Report {
            image,
            manifest: &path,
            size: manifest.size(),
            chunk: manifest.chunk(),
            chunks: manifest.chunks(),
        };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        let (chunks, chunk) = (manifest.chunks(), manifest.chunk());
        let path = path.display();
        writeln!(out, "{path}: {chunks} chunks of {chunk} bytes")?;
    }
    Ok(())
}

/// Where the manifest of an image is.
fn beside(image: &Path) -> PathBuf {
    let mut name = OsString::from(image);
    name.push(SUFFIX);
    name.into()
}

fn make(image: &Path, chunk: u32) -> anyhow::Result<Manifest> {
    let cannot = || format!("cannot read {}", image.display());
    let mut file = File::open(image).with_context(cannot)?;
    let metadata = file.metadata().with_context(cannot)?;
    ensure!(metadata.is_file(), "{}: not a regular file", cannot());
    let size = metadata.len();
    // A line a chunk.
    let text = size.div_ceil(u64::from(chunk)).saturating_mul(65);
    ensure!(
        text + 1000 <= LONGEST,
        "{}: too many chunks for a manifest; use a larger --chunk",
        image.display()
    );

    let bar = ProgressBar::new(size).with_style(style());
    // Drawn on a terminal only, and not for what is done at once.
    bar.enable_steady_tick(DRAW_EVERY);
    let mut buffer = vec![0; usize::try_from(chunk)?];
    let mut sums = Vec::new();
    let mut total = 0;
    loop {
        let len = read_full(&mut file, &mut buffer).with_context(cannot)?;
        if len == 0 {
            break;
        }
        total += u64::try_from(len)?;
        sums.push(sum(&buffer[..len]));
        bar.inc(u64::try_from(len)?);
        if len < buffer.len() {
            break;
        }
    }
    bar.finish_and_clear();
    ensure!(
        total == size && file.metadata().with_context(cannot)?.len() == size,
        "{} has changed while it was read; an image must be complete",
        image.display()
    );
    Ok(Manifest::new(size, chunk, sums)?)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Writes a file that appears as a whole, and stays after a loss of power.
fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut new = OsString::from(path);
    new.push(".new");
    let new = PathBuf::from(new);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
        // What is half written is of no use to anybody.
        let _ = fs::remove_file(&new);
        return Err(error).with_context(cannot);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_gets_a_manifest_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("a.erofs");
        let data: Vec<u8> = (0..70_000_u32).map(|n| (n % 253) as u8).collect();
        fs::write(&image, &data).unwrap();
        let args = cli::Manifest {
            image: image.clone(),
            chunk: 65_536,
            output: None,
            json: false,
        };
        run(&args).unwrap();
        let text = fs::read(root.path().join("a.erofs.manifest")).unwrap();
        let manifest = Manifest::parse(&text).unwrap();
        assert_eq!((manifest.size(), manifest.chunks()), (70_000, 2));
        assert!(manifest.fits(65_536, &data[65_536..]));
        assert_eq!(
            fs::read_dir(root.path()).unwrap().count(),
            2,
            "no leftovers"
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = |path: &Path| format!("{:#}", make(path, 4096).unwrap_err());
        assert!(error(&root.path().join("none")).contains("none"));
        assert!(error(root.path()).contains("regular file") || error(root.path()).contains("read"));
        let large = root.path().join("large");
        File::create(&large).unwrap().set_len(1 << 40).unwrap();
        assert!(error(&large).contains("--chunk"));
    }

    #[test]
    fn an_empty_image_has_a_manifest() {
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("empty");
        fs::write(&image, "").unwrap();
        assert_eq!(make(&image, 4096).unwrap().chunks(), 0);
    }
}
