// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mounting, reading and unmounting one item after another, in a process of its own.
//!
//! What [`Task`] starts of `ondemand-store`, besides the helpers of the harness:
//!
//! - `visit IMAGES DIR`: for each item on standard input: mounts it at DIR, reads and compares its
//!   spans, and unmounts it
//! - `stay IMAGES DIR`: the same at DIR0, DIR1 ..., and unmounts nothing
//! - `reorder-visit MOUNTS IMAGES`: see [`super::reorder::visit`]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Seek;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Message;
use cachefiles_proto::OpenAnswer;
use rustix::fs::Advice;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use super::items;
use super::items::Item;
use super::items::Visit;
use super::reorder;
use crate::harness::helper;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Event;
use crate::harness::Image;
use crate::harness::Images;
use crate::harness::Task;

/// Where items are mounted one after another, below the work directory.
const VISIT: &str = "visit";

/// How much is read at a time of what is read from end to end, in bytes.
const CHUNK: usize = 64 << 10;

/// How much is read at a time of anything else, so that no more is fetched, in bytes.
const PAGE: usize = 4096;

/// Runs a helper: `visit` and `stay`, or one of the harness.
#[must_use]
pub fn helper_main(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (images, dir, stay) = match words[..] {
        ["visit", images, dir] => (images, dir, false),
        ["stay", images, dir] => (images, dir, true),
        [reorder::visit::HELPER, mounts, images] => {
            return reorder::visit::main(mounts, images);
        }
        _ => return helper::main(arguments),
    };
    // SAFETY: Nothing has been opened yet, so that no owner of a descriptor above 2 exists.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    match visit_all(Path::new(images), dir, stay) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn visit_all(images: &Path, dir: &str, stay: bool) -> Result<()> {
    let images = Images::in_directory(images);
    for (number, visit) in items::decode(std::io::stdin().lock())?.iter().enumerate() {
        let at = if stay {
            PathBuf::from(format!("{dir}{number}"))
        } else {
            PathBuf::from(dir)
        };
        std::fs::create_dir_all(&at)?;
        visit_one(&images, &at, visit, stay)
            .with_context(|| visit.options.escape_ascii().to_string())?;
    }
    Ok(())
}

fn visit_one(images: &Images, at: &Path, visit: &Visit, stay: bool) -> Result<()> {
    let options = CString::new(visit.options.clone())?;
    rustix::mount::mount("none", at, "erofs", MountFlags::RDONLY, options.as_c_str())
        .context("mount")?;
    let read = read_spans(images, at, visit);
    if !stay {
        rustix::mount::unmount(at, UnmountFlags::empty()).context("umount")?;
    }
    read
}

fn read_spans(images: &Images, at: &Path, visit: &Visit) -> Result<()> {
    if visit.spans.is_empty() {
        return Ok(());
    }
    let wanted = images.contents(&visit.image)?;
    let file = File::open(items::file_at(at)).context("open")?;
    let whole = visit.spans == [(0, wanted.len())];
    let (advice, most) = if whole {
        (Advice::Normal, CHUNK)
    } else {
        (Advice::Random, PAGE)
    };
    rustix::fs::fadvise(&file, 0, None, advice)?;
    let mut chunk = vec![0; most];
    for &(from, len) in &visit.spans {
        let mut done = from;
        while done < from + len {
            let part = &mut chunk[..most.min(from + len - done)];
            file.read_exact_at(part, u64::try_from(done)?)
                .with_context(|| format!("read at {done}"))?;
            same(
                &format!("from byte {done} on"),
                part,
                &wanted[done..done + part.len()],
            )?;
            done += part.len();
        }
    }
    Ok(())
}

/// What a daemon serves: of each cookie key, the image. Keys are unique over all volumes here.
#[derive(Debug, Default)]
pub struct Catalogue(BTreeMap<Vec<u8>, Arc<Image>>);

impl Catalogue {
    /// All objects of these items.
    ///
    /// # Errors
    ///
    /// There is no such image.
    pub fn new(images: &Images, items: &[Item]) -> Result<Self> {
        let mut loaded: BTreeMap<&str, Arc<Image>> = BTreeMap::new();
        let mut catalogue = BTreeMap::new();
        for (key, name) in items.iter().flat_map(Item::objects) {
            if !loaded.contains_key(name) {
                loaded.insert(name, images.get(name)?);
            }
            catalogue.insert(key, Arc::clone(&loaded[name]));
        }
        Ok(Catalogue(catalogue))
    }

    /// Answers a message as a daemon should.
    ///
    /// # Errors
    ///
    /// The kernel refused the answer.
    pub fn answer(&self, daemon: &mut Daemon, message: Message) -> Result<()> {
        let Message::Open(open) = message else {
            return daemon.answer(message);
        };
        match self.0.get(&open.cookie_key) {
            Some(image) => daemon.accept(open, image).map(drop),
            None => {
                let (msg_id, answer) = (open.msg_id, OpenAnswer::Error(Errno::NOENT));
                drop(open);
                let command = cachefiles_proto::Command::Copen { msg_id, answer };
                Ok(daemon.device.send(&command)?)
            }
        }
    }
}

/// Starts a process that visits these items one after another.
///
/// # Errors
///
/// No process could be started.
pub fn start(t: &Context, helper: &str, items: &[Item], dir: &str) -> Result<Task> {
    let mut plan = File::from(rustix::fs::memfd_create("plan", MemfdFlags::CLOEXEC)?);
    for item in items {
        plan.write_all(items::encode(item).as_bytes())?;
    }
    plan.rewind()?;
    let images = t.settings.work_dir.to_string_lossy();
    let dir = t.settings.work_dir.join(dir);
    Task::start(
        &[helper, &images, &dir.to_string_lossy()],
        Stdio::from(plan),
    )
}

/// Where [`visit`] mounts.
#[must_use]
pub fn mount_point(t: &Context) -> PathBuf {
    t.settings.work_dir.join(VISIT)
}

/// A READ: the key of its object, offset and length in bytes.
pub type KeyedRead = (Vec<u8>, u64, u64);

/// Binds the cache in `dir`, visits all items, and unbinds it; the READs that came.
///
/// # Errors
///
/// Something failed, or a byte was wrong.
pub fn visit(t: &Context, dir: &Path, items: &[Item]) -> Result<Vec<KeyedRead>> {
    let catalogue = Catalogue::new(&t.images, items)?;
    let mut daemon = t.daemon_in(dir)?;
    let mut task = start(t, "visit", items, VISIT)?;
    daemon
        .serve_with(&mut task, |daemon, message| {
            catalogue.answer(daemon, message)
        })?
        .ok("visit")?;
    keyed_reads(&daemon)
}

/// The READs that a daemon has seen.
///
/// # Errors
///
/// A READ of an object that was never opened.
pub fn keyed_reads(daemon: &Daemon) -> Result<Vec<KeyedRead>> {
    let mut keys = BTreeMap::new();
    let mut reads = Vec::new();
    for event in &daemon.log {
        match event {
            Event::Open(_, object, key) => {
                keys.insert(*object, key.clone());
            }
            Event::Read(_, object, off, len) => {
                let key = keys.get(object).context("a READ of no object")?;
                reads.push((key.clone(), *off, *len));
            }
            Event::Close(..) => {}
        }
    }
    Ok(reads)
}
