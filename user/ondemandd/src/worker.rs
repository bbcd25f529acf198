// SPDX-License-Identifier: MIT OR Apache-2.0

//! The worker: gets the device from the keeper, then answers messages with a few threads.
//!
//! It opens what it needs, gives up everything else (see [`sandbox`](crate::sandbox)), and starts its threads
//! then.
//!
//! It has no state that matters: whatever it knew is asked for again after its death. So any
//! failure that is not one of a single message ends it, and a panic of one thread ends them all.
//!
//! When the keeper dies the worker serves on, and says so in the log: the worker holds the device,
//! so every mounted image stays usable, while to end with the keeper would fail all of them at
//! once. There is no failover from then on; end the worker (SIGTERM) and start anew when it suits.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use cachefiles_proto::Buffer;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::BLOCK_SIZE;
use rustix::event::epoll;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::process::Rlimit;
use thiserror::Error;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::block::BlockBuffer;
use crate::cli;
use crate::counters::count;
use crate::counters::Counters;
use crate::handover::Begin;
use crate::handover::Channel;
use crate::handover::Done;
use crate::handover::Handover;
use crate::handover::Word;
use crate::handover::EXIT_CACHE_DEAD;
use crate::handover::RESUMES;
use crate::manifest;
use crate::objects::Objects;
use crate::patience::Patience;
use crate::pool::Pools;
use crate::pool::Queue;
use crate::record::judge::Guard;
use crate::record::Name;
use crate::record::Record;
use crate::sandbox::Sandbox;
use crate::sandbox::SandboxMode;
use crate::server::Rest;
use crate::server::Server;
use crate::server::Versions;
use crate::source::names::PreparedSources;
use crate::takeover::READY_WITHIN;

/// Memory of a thread for one copy, in blocks: 1 MiB.
const COPY_BLOCKS: usize = 256;

const _: () = assert!(COPY_BLOCKS * BLOCK_SIZE >= manifest::LARGEST_CHUNK as usize);

/// How long a thread relies on being woken up. The C module forgets to wake in a few races; with
/// this they cost half a second instead of for ever.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a thread waits for a free descriptor before it tries again.
const DESCRIPTOR_WITHIN: Duration = Duration::from_millis(100);

/// How long the keeper may take to make a file stale: a write and a flush of a disk that may be busy.
const STALE_WITHIN: Duration = Duration::from_secs(10);

/// Why a worker ended.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The kernel declared the cache dead.
    #[error("the kernel declared the cache dead; its log says why")]
    CacheDead,
    /// Anything else; the next worker may do better.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl WorkerError {
    /// The exit status that tells the keeper.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            WorkerError::CacheDead => EXIT_CACHE_DEAD,
            WorkerError::Other(_) => 1,
        }
    }
}

impl From<cachefiles_proto::Error> for WorkerError {
    fn from(error: cachefiles_proto::Error) -> Self {
        match error.errno() {
            Some(Errno::IO) => WorkerError::CacheDead,
            _ => WorkerError::Other(error.into()),
        }
    }
}

/// Runs a worker whose standard input is the keeper's socket. Returns only with an error: a worker
/// is ended by a signal.
///
/// # Errors
///
/// A [`WorkerError`].
pub fn run(args: &cli::Worker) -> Result<(), WorkerError> {
    abort_on_panic();
    // The file may be one without a name; ps and pgrep should find the worker all the same.
    let _ = rustix::thread::set_name(c"ondemandd");
    raise_descriptor_limit();
    let channel = channel_from_stdin()?;
    let handover = channel
        .receive_device(READY_WITHIN)
        .context("got no device from the keeper")?;
    let begin = handover.begin;
    let prepared = prepare(args, handover, &channel);
    if begin == Begin::OnGo {
        // That it cannot say why is nothing to say: it is about to end.
        if let Err(error) = &prepared {
            let _ = channel.send_word(&Word::Failed(format!("{error:#}")));
        }
    }
    let (server, epoll) = prepared?;
    if begin == Begin::OnGo {
        let resumes = RESUMES;
        channel
            .send_word(&Word::Prepared { resumes })
            .context("cannot tell the keeper that all is prepared")?;
        channel.receive_go().context("never told to begin")?;
    }
    if begin != Begin::First {
        server.device.send(&Command::Restore)?;
        count(&server.counters.restores, 1);
    }
    info!(
        threads = args.threads,
        user = args.identity.as_ref().map(ToString::to_string),
        takeover = begin != Begin::First,
        "worker serves"
    );
    thread::scope(|scope| {
        for _ in 0..args.threads.get() {
            thread::Builder::new()
                .name("ondemandd-io".into())
                .spawn_scoped(scope, || end_process(serve(&server, &epoll)))
                .context("cannot start a thread")?;
        }
        for queue in server.pools.iter() {
            for _ in 0..queue.threads() {
                thread::Builder::new()
                    .name("ondemandd-wait".into())
                    .spawn_scoped(scope, || work(&server, queue))
                    .context("cannot start a thread")?;
            }
        }
        channel
            .send_word(&Word::Ready)
            .context("cannot tell the keeper that all is ready")?;
        channel.wait_for_end().context("cannot watch the keeper")?;
        error!("the keeper has ended: serving on, but nobody will replace this worker");
        Ok(())
    })
}

/// Does all that can be done while another worker serves: reads nothing from the device, and writes nothing to
/// it.
fn prepare(
    args: &cli::Worker,
    handover: Handover,
    channel: &Channel,
) -> Result<(Server, OwnedFd), WorkerError> {
    let counters = Arc::new(Counters::from_owned_fd(handover.counters)?);
    let sources = PreparedSources::open(&args.sources()?, &counters)?;
    let device = Device::from_owned_fd(handover.device)?;
    let versions = open_record(args, channel)?;
    if let Some(identity) = &args.identity {
        let sandbox = Sandbox {
            required: args.sandbox == SandboxMode::Required,
            identity,
            sources: sources.directories().collect(),
            network: sources.has_remote(),
        };
        sandbox.enter().context("sandbox")?;
    }
    // Here are the first threads, which inherit it.
    let sources = sources.start()?;
    let server = Server {
        device,
        pools: Pools::new(&sources),
        sources,
        objects: Objects::default(),
        counters,
        patience: Patience::default(),
        rest: Rest::default(),
        versions,
    };
    let epoll = watch(&server.device).context("epoll")?;
    Ok((server, epoll))
}

/// Opens the record, which is of root, and stays open when the worker is somebody else.
fn open_record(args: &cli::Worker, channel: &Channel) -> anyhow::Result<Versions> {
    let path = args.record.as_ref().context(
        "the keeper is of a version that keeps no record of versions: restart the service",
    )?;
    let record = Record::open(path)
        .with_context(|| format!("the record of versions, {}", path.display()))?;
    let guard = match args.tokens {
        true => Guard::Kernel,
        false => Guard::Record,
    };
    let channel = channel.duplicate().context("no descriptor left")?;
    let asked = Mutex::new((channel, 0_u8));
    let make_stale = move |name: &Name| {
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (channel, number) = &mut *asked;
        *number = number.wrapping_add(1);
        ask_to_make_stale(channel, *number, name)
    };
    let mut versions = Versions::new(record, guard, Box::new(make_stale));
    versions.insists = args.insists;
    Ok(versions)
}

/// Asks the keeper, and waits for its answer.
fn ask_to_make_stale(channel: &Channel, number: u8, name: &Name) -> Result<(), String> {
    let word = Word::Stale {
        number,
        name: name.to_string(),
    };
    channel
        .send_word(&word)
        .map_err(|error| error.to_string())?;
    let by = Instant::now() + STALE_WITHIN;
    loop {
        let left = by.saturating_duration_since(Instant::now());
        let done = channel.receive_done(left);
        match done.map_err(|error| error.to_string())? {
            Done { number: other, .. } if other != number => {}
            Done { failed: None, .. } => return Ok(()),
            Done {
                failed: Some(error),
                ..
            } => return Err(error),
        }
    }
}

/// Takes the socket off standard input, which then reads `/dev/null`.
fn channel_from_stdin() -> anyhow::Result<Channel> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        anyhow::bail!("`worker` is started by the keeper; use `ondemandd serve`");
    }
    let channel = stdin.as_fd().try_clone_to_owned().context("no socket")?;
    let null = std::fs::File::open("/dev/null").context("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot replace standard input")?;
    Ok(Channel::from(channel))
}

/// A thread that panics would leave its message unanswered: end, and let the next worker do it.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Every open object takes two descriptors; use as many as root may have.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the limit of open files");
    }
}

/// An epoll instance for all threads. Level-triggered: a thread that takes a message leaves the
/// device on the ready list, so that the kernel wakes the next thread for the next message, and
/// none for nothing.
fn watch(device: &Device) -> Result<OwnedFd, Errno> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(0);
    epoll::add(&epoll, device, data, epoll::EventFlags::IN)?;
    Ok(epoll)
}

/// Ends all threads. The kernel closes the anonymous files before the keeper sees the end.
fn end_process(error: WorkerError) {
    error!(error = format!("{error:#}"), "worker ends");
    std::process::exit(i32::from(error.exit_status()));
}

/// One thread: waits, answers until nothing is left, waits.
fn serve(server: &Server, epoll: &OwnedFd) -> WorkerError {
    let mut message_buffer = Buffer::new();
    let mut copy_buffer = BlockBuffer::new(COPY_BLOCKS);
    let mut events = Vec::with_capacity(1);
    let timeout = Timespec::try_from(LOOK_EVERY).ok();
    loop {
        events.clear();
        let waited = epoll::wait(
            epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        );
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return WorkerError::Other(anyhow::Error::new(errno).context("epoll")),
        }
        let dead = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        let is_dead = |event: &epoll::Event| {
            let flags = event.flags;
            flags.intersects(dead)
        };
        if events.iter().any(is_dead) {
            return WorkerError::CacheDead;
        }
        // Read even if nothing was reported: see LOOK_EVERY.
        loop {
            match server.device.read_message(&mut message_buffer) {
                Ok(Some(message)) => server.answer(message, &mut copy_buffer),
                Ok(None) => break,
                Err(error) => {
                    if let Err(fatal) = survive(server, error) {
                        return fatal;
                    }
                }
            }
        }
    }
}

/// One thread of a remote source: answers what is in its queue, for ever.
fn work(server: &Server, queue: &Queue) {
    let mut copy_buffer = BlockBuffer::new(COPY_BLOCKS);
    loop {
        queue.serve(|job| server.work(job, &mut copy_buffer));
    }
}

/// Decides whether a failed read of the device ends the worker.
fn survive(server: &Server, error: cachefiles_proto::Error) -> Result<(), WorkerError> {
    count(&server.counters.kernel_errors, 1);
    match error.errno() {
        // An OPEN waits for a descriptor.
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
            warn!(%error, "OPEN has to wait");
            server.objects.wait_for_removal(DESCRIPTOR_WITHIN);
            Ok(())
        }
        Some(_) => Err(error.into()),
        None => {
            warn!(%error, "message dropped");
            Ok(())
        }
    }
}
