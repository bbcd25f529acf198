// SPDX-License-Identifier: MIT OR Apache-2.0

//! Daemons of several threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Buffer;
use cachefiles_proto::Device;
use cachefiles_proto::Message;
use rustix::event::epoll;
use rustix::event::eventfd;
use rustix::event::EventfdFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::io::FdFlags;

use crate::harness::daemon::Opened;
use crate::harness::drop_caches;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Image;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "load_two_threads",
        "messages that are lost or doubled between two threads",
        two_threads,
    ),
    Test::new(
        "load_edge_triggered_threads",
        "an edge-triggered daemon of four threads that misses a message",
        four_threads,
    ),
];

/// What the threads of a daemon share.
struct Shared {
    device: Device,
    images: Vec<Arc<Image>>,
    open: Mutex<BTreeMap<u32, Arc<Opened>>>,
    poller: OwnedFd,
}

/// The poller's name for the file that ends the threads.
const STOP: u64 = 2;

impl Shared {
    /// Serves until told to stop; returns how many messages it had.
    fn serve(&self) -> Result<usize> {
        let mut buffer = Buffer::new();
        let mut seen = 0;
        let mut events = Vec::with_capacity(1);
        loop {
            events.clear();
            match epoll::wait(
                &self.poller,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if events.iter().any(|event| event.data.u64() == STOP) {
                return Ok(seen);
            }
            while let Some(message) = self.device.read_message(&mut buffer)? {
                seen += 1;
                self.answer(message)?;
            }
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Arc<Opened>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, message: Message) -> Result<()> {
        match message {
            Message::Open(open) => {
                rustix::io::fcntl_setfd(&open.file, FdFlags::CLOEXEC)?;
                let image = self
                    .images
                    .iter()
                    .find(|image| image.name.as_bytes() == open.cookie_key)
                    .context("an unknown image")?;
                let opened = Opened {
                    file: open.file,
                    image: Arc::clone(image),
                };
                self.open().insert(open.object_id, Arc::new(opened));
                let copen = format!("copen {},{}", open.msg_id, image.size);
                self.device.write_bytes(copen.as_bytes()).context(copen)?;
            }
            Message::Read(read) => {
                let opened = self.open().get(&read.object_id).map(Arc::clone);
                let opened = opened.with_context(|| format!("not open: {read:?}"))?;
                let data = opened.image.range(read.off, read.len);
                opened.file.write_all_at(data, read.off)?;
                opened.file.read_complete(read.msg_id)?;
            }
            Message::Close(close) => drop(self.open().remove(&close.object_id)),
        }
        Ok(())
    }
}

fn two_threads(t: &Context) -> Result<()> {
    threads(t, 2, epoll::EventFlags::IN)
}

fn four_threads(t: &Context) -> Result<()> {
    threads(t, 4, epoll::EventFlags::IN | epoll::EventFlags::ET)
}

fn threads(t: &Context, count: usize, interest: epoll::EventFlags) -> Result<()> {
    let daemon = t.daemon(&["plain", "lz4"])?;
    let shared = Shared {
        device: daemon.device,
        images: daemon.images,
        open: Mutex::default(),
        poller: epoll::create(epoll::CreateFlags::CLOEXEC)?,
    };
    let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
    let device = epoll::EventData::new_u64(1);
    epoll::add(&shared.poller, &shared.device, device, interest)?;
    let ending = epoll::EventData::new_u64(STOP);
    epoll::add(&shared.poller, &stop, ending, epoll::EventFlags::IN)?;
    let seen = thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(|| shared.serve())).collect();
        let read = read_all(t);
        rustix::io::write(&stop, &1_u64.to_ne_bytes())?;
        let mut seen = Vec::new();
        for worker in workers {
            let messages = worker
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            seen.push(messages.context("a thread of the daemon")?);
        }
        read.map(|()| seen)
    })?;
    ensure!(seen.iter().sum::<usize>() > 16, "messages: {seen:?}");
    Ok(())
}

/// Mounts both images and reads them with several readers at a time.
fn read_all(t: &Context) -> Result<()> {
    let mut mounts = Vec::new();
    for name in ["plain", "lz4"] {
        let at = t.mount_point()?;
        let mut mount = t.mount(&format!("fsid={name}"), &at)?;
        mount.wait(SOON)?.ok("mount")?;
        mounts.push((at, t.images.contents(name)?));
    }
    drop_caches()?;
    let mut readers = Vec::new();
    for (at, expected) in &mounts {
        let part = expected.len() / 4;
        for number in 0..4 {
            let begin = number * part;
            let reader = t.block_reader(at, begin, part)?;
            readers.push((reader, &expected[begin..begin + part]));
        }
        readers.push((t.reader(at, 0, expected.len())?, &expected[..]));
    }
    for (reader, expected) in &mut readers {
        let data = reader.wait(SOON)?.ok("read")?;
        same(reader.what(), &data, expected)?;
    }
    for (at, _) in &mounts {
        t.unmount(at)?.wait(SOON)?.ok("umount")?;
    }
    Ok(())
}
