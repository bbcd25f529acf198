// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemon, the same one for both modules, in a process of its own: its work for a request does
//! not depend on how many there are, and its data lies in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::AnonymousFile;
use cachefiles_proto::Buffer;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Error;
use cachefiles_proto::Message;
use cachefiles_proto::Open;
use cachefiles_proto::OpenAnswer;
use cachefiles_proto::Read;
use cachefiles_proto::Readiness;
use cachefiles_proto::BLOCK_SIZE;
use clap::Args;
use memmap2::Mmap;
use memmap2::MmapOptions;
use rustix::io::Errno;

use crate::image::file_of_key;
use crate::mode::Fill;
use crate::times::now;

/// How long the kernel may take after `copen` until an object can be written to.
const READY: Duration = Duration::from_secs(5);

/// What the daemon writes before it is asked: of every `every` chunks of `chunk` bytes the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefetch {
    chunk: usize,
    every: usize,
}

impl FromStr for Prefetch {
    type Err = anyhow::Error;

    /// `CHUNK/EVERY`
    fn from_str(text: &str) -> Result<Self> {
        let (chunk, every) = text.split_once('/').context("CHUNK/EVERY")?;
        let (chunk, every) = (chunk.parse()?, every.parse()?);
        ensure!(chunk > 0 && chunk % BLOCK_SIZE == 0, "CHUNK is no blocks");
        ensure!(every > 0, "EVERY is 0");
        Ok(Prefetch { chunk, every })
    }
}

/// How the daemon serves the device that is its standard input.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where the images are; a cookie key is a file's name, up to its first dot.
    #[arg(long)]
    images: PathBuf,
    /// How many threads serve.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// What is written for a READ: `asked`, or aligned windows of so many bytes.
    #[arg(long, default_value_t)]
    fill: Fill,
    /// What is written right after an OPEN: of every EVERY chunks of CHUNK bytes the first.
    #[arg(long, value_name = "CHUNK/EVERY")]
    prefetch: Option<Prefetch>,
    /// After SIGUSR1, take so many READs and answer none.
    #[arg(long, value_name = "READS")]
    hold: Option<u32>,
    /// Go on where another daemon was killed.
    #[arg(long)]
    restore: bool,
    /// Do not touch the images' pages before they are needed.
    #[arg(long)]
    lazy: bool,
}

/// An object that is open.
struct Object {
    file: AnonymousFile,
    data: Arc<Mmap>,
}

/// What the threads share.
struct Server {
    options: Options,
    device: Device,
    objects: RwLock<HashMap<u32, Arc<Object>>>,
    images: Mutex<HashMap<String, Option<Arc<Mmap>>>>,
    holding: Arc<AtomicBool>,
    told: AtomicBool,
    held: AtomicU32,
}

/// Serves until the device is dead, or for ever.
///
/// # Errors
///
/// Standard input is no device, or the kernel refuses something.
pub(crate) fn serve(options: Options) -> Result<()> {
    // Whoever has started the daemon holds the device; nobody is to hold it after that.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let device = std::io::stdin().as_fd().try_clone_to_owned()?;
    let holding = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&holding))?;
    let server = Server {
        options,
        device: Device::from_owned_fd(device)?,
        objects: RwLock::default(),
        images: Mutex::default(),
        holding,
        told: AtomicBool::new(false),
        held: AtomicU32::new(0),
    };
    if server.options.restore {
        let begun = now();
        server.device.send(&Command::Restore)?;
        say(&format!("restore {}", begun.as_nanos()))?;
    }
    say("ready")?;
    // One thread that fails is the end of all.
    let run = || {
        server.run().unwrap_or_else(|error| {
            eprintln!("daemon: {error:#}");
            std::process::exit(1);
        });
    };
    thread::scope(|scope| {
        for _ in 1..server.options.threads {
            scope.spawn(run);
        }
        run();
    });
    Ok(())
}

/// Tells whoever has started the daemon.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

impl Server {
    /// Waits for messages and takes them until there is none, again and again.
    fn run(&self) -> Result<()> {
        let mut buffer = Buffer::new();
        loop {
            if self.device.wait(Readiness::MESSAGE, None)?.dead {
                return Ok(());
            }
            // The signal has ended the wait.
            if self.holding.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::Relaxed) {
                say("holding")?;
            }
            while let Some(message) = self.device.read_message(&mut buffer)? {
                match message {
                    Message::Open(open) => self.open(open)?,
                    Message::Read(read) => self.read(&read)?,
                    Message::Close(close) => {
                        let mut objects = write(&self.objects);
                        let gone = objects.remove(&close.object_id);
                        drop(objects);
                        drop(gone);
                    }
                }
            }
        }
    }

    fn open(&self, open: Open) -> Result<()> {
        let key = String::from_utf8_lossy(&open.cookie_key).into_owned();
        let msg_id = open.msg_id;
        let Some(data) = self.image(file_of_key(&key)) else {
            drop(open.file);
            let answer = OpenAnswer::Error(Errno::NOENT);
            return Ok(self.device.send(&Command::Copen { msg_id, answer })?);
        };
        let answer = OpenAnswer::Size(u64::try_from(data.len())?);
        let object = Arc::new(Object {
            file: open.file,
            data,
        });
        write(&self.objects).insert(open.object_id, Arc::clone(&object));
        self.device.send(&Command::Copen { msg_id, answer })?;
        match self.options.prefetch {
            Some(prefetch) => object.prefetch(prefetch),
            None => Ok(()),
        }
    }

    fn read(&self, read: &Read) -> Result<()> {
        if self.holding.load(Ordering::Relaxed) {
            let held = self.held.fetch_add(1, Ordering::Relaxed) + 1;
            return match Some(held) == self.options.hold {
                true => say("held"),
                false => Ok(()),
            };
        }
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let object = objects.get(&read.object_id).map(Arc::clone);
        drop(objects);
        let object = object.with_context(|| format!("{read:?}: no such object"))?;
        let (from, to) = self.options.fill.range(read.off, read.len);
        let clamp =
            |at| usize::try_from(at).map_or(object.data.len(), |at| object.data.len().min(at));
        let data = &object.data[clamp(from)..clamp(to)];
        object.file.write_all_at(data, from)?;
        match object.file.read_complete(read.msg_id) {
            // Its reader was killed, or somebody else has filled the range.
            Err(Error::ReadComplete {
                errno: Errno::INVAL,
                ..
            }) => Ok(()),
            other => Ok(other?),
        }
    }

    /// An image by the name of its file. Each is mapped once.
    fn image(&self, name: &str) -> Option<Arc<Mmap>> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = images.get(name) {
            return image.clone();
        }
        let image = self.map(name).ok().map(Arc::new);
        images.insert(name.to_owned(), image.clone());
        image
    }

    fn map(&self, name: &str) -> Result<Mmap> {
        let file = File::open(self.options.images.join(name))?;
        let mut options = MmapOptions::new();
        if !self.options.lazy {
            options.populate();
        }
        // SAFETY: The images are made before a daemon starts, and nobody changes them.
        let data = unsafe { options.map(&file) }?;
        ensure!(data.len() % BLOCK_SIZE == 0, "{name} is not whole blocks");
        Ok(data)
    }
}

impl Object {
    fn prefetch(&self, prefetch: Prefetch) -> Result<()> {
        let begun = Instant::now();
        let chunks = self.data.chunks(prefetch.chunk).enumerate();
        for (i, chunk) in chunks.step_by(prefetch.every) {
            let at = u64::try_from(i * prefetch.chunk)?;
            loop {
                match self.file.write_all_at(chunk, at) {
                    // The C module says so until the opener has run.
                    Err(Error::WriteObject {
                        errno: Errno::NOBUFS,
                        ..
                    }) if begun.elapsed() < READY => thread::sleep(Duration::from_millis(1)),
                    other => break other?,
                }
            }
        }
        Ok(())
    }
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_prefetched_is_whole_blocks() {
        let half: Prefetch = "16384/2".parse().unwrap();
        assert_eq!((half.chunk, half.every), (16384, 2));
        for text in ["16384", "0/1", "5000/1", "4096/0", "x/1"] {
            assert!(text.parse::<Prefetch>().is_err(), "{text}");
        }
    }
}
