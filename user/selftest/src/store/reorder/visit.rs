// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mounting, reading and unmounting, in a process of its own: what it does is a list on its standard input.

use std::ffi::CString;
use std::fs::File;
use std::io::BufRead;
use std::io::Seek;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::process::Stdio;

use anyhow::bail;
use anyhow::Context as _;
use anyhow::Result;
use rustix::fs::Advice;
use rustix::fs::MemfdFlags;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use super::versions;
use crate::harness::image::FILE;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Task;

/// The word that this helper is started with.
pub const HELPER: &str = "reorder-visit";

/// How much is read at a time, in bytes: of much, and of little, so that little is asked for.
const CHUNK: usize = 64 << 10;
const PAGE: usize = 4096;

/// One thing to do with an object, which is mounted at the place of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Mount it.
    Mount(usize),
    /// Read `len` bytes of its file from `from` on. They must be those of a version, if there is one.
    Read {
        /// The object.
        object: usize,
        /// The version.
        version: Option<usize>,
        /// Bytes.
        from: usize,
        /// Bytes.
        len: usize,
    },
    /// Unmount it.
    Unmount(usize),
}

fn encode(step: &Step) -> String {
    match step {
        Step::Mount(object) => format!("mount {object}\n"),
        Step::Unmount(object) => format!("unmount {object}\n"),
        Step::Read {
            object,
            version,
            from,
            len,
        } => {
            let version = version.map_or("-".into(), |version| version.to_string());
            format!("read {object} {version} {from} {len}\n")
        }
    }
}

fn decode(line: &str) -> Result<Step> {
    let words: Vec<&str> = line.split(' ').collect();
    Ok(match words[..] {
        ["mount", object] => Step::Mount(object.parse()?),
        ["unmount", object] => Step::Unmount(object.parse()?),
        ["read", object, version, from, len] => Step::Read {
            object: object.parse()?,
            version: match version {
                "-" => None,
                number => Some(number.parse()?),
            },
            from: from.parse()?,
            len: len.parse()?,
        },
        _ => bail!("no step: {line}"),
    })
}

/// Where the images are mounted.
#[must_use]
pub fn mount_points(t: &Context) -> PathBuf {
    t.settings.work_dir.join("mounts")
}

/// Where the versions are made that are compared with what is read.
#[must_use]
pub fn images(t: &Context) -> PathBuf {
    t.settings.work_dir.join("versions")
}

/// Starts a process that does this.
///
/// # Errors
///
/// No process could be started.
pub fn start(t: &Context, steps: &[Step]) -> Result<Task> {
    let mut plan = File::from(rustix::fs::memfd_create("plan", MemfdFlags::CLOEXEC)?);
    for step in steps {
        plan.write_all(encode(step).as_bytes())?;
    }
    plan.rewind()?;
    let (mounts, images) = (mount_points(t), images(t));
    let words = [HELPER, &mounts.to_string_lossy(), &images.to_string_lossy()];
    Task::start(&words, Stdio::from(plan))
}

/// The process itself.
#[must_use]
pub fn main(mounts: &str, images: &str) -> ExitCode {
    match run(Path::new(mounts), Path::new(images)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path, images: &Path) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let step = decode(&line)?;
        do_step(dir, images, step).with_context(|| {
            let (Step::Mount(object) | Step::Unmount(object) | Step::Read { object, .. }) = step;
            format!("{}: {line}", versions::key(object))
        })?;
    }
    Ok(())
}

fn do_step(dir: &Path, images: &Path, step: Step) -> Result<()> {
    match step {
        Step::Mount(object) => {
            let at = dir.join(versions::key(object));
            std::fs::create_dir_all(&at)?;
            let options = CString::new(versions::options(object))?;
            rustix::mount::mount("none", &at, "erofs", MountFlags::RDONLY, options.as_c_str())?;
        }
        Step::Unmount(object) => {
            rustix::mount::unmount(dir.join(versions::key(object)), UnmountFlags::empty())?;
        }
        Step::Read {
            object,
            version,
            from,
            len,
        } => {
            let wanted = version
                .map(|version| std::fs::read(versions::contents_file(images, object, version)))
                .transpose()?;
            let file = File::open(dir.join(versions::key(object)).join(FILE))?;
            let (advice, most) = if len >= CHUNK {
                (Advice::Normal, CHUNK)
            } else {
                (Advice::Random, PAGE)
            };
            rustix::fs::fadvise(&file, 0, None, advice)?;
            let mut chunk = vec![0; most];
            let end = (from + len).min(versions::len(object));
            for at in (from..end).step_by(most) {
                let part = &mut chunk[..most.min(end - at)];
                file.read_exact_at(part, u64::try_from(at)?)
                    .with_context(|| format!("read at {at}"))?;
                if let Some(wanted) = &wanted {
                    same(
                        &format!("from byte {at} on"),
                        part,
                        &wanted[at..at + part.len()],
                    )?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod steps {
    use super::*;

    #[test]
    fn come_back_as_they_were() -> Result<()> {
        let read = |version| Step::Read {
            object: 2,
            version,
            from: 4096,
            len: 17,
        };
        for step in [Step::Mount(1), Step::Unmount(5), read(None), read(Some(3))] {
            assert_eq!(decode(encode(&step).trim_end())?, step);
        }
        assert!(decode("read 1 2 3").is_err());
        assert!(decode("").is_err());
        Ok(())
    }
}
