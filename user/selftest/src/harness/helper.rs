// SPDX-License-Identifier: MIT OR Apache-2.0

//! The other side of a [`Task`](super::Task): what the processes do that tests start.
//!
//! - `mount OPTIONS DIR`: mounts EROFS
//! - `mount-many COUNT DOMAIN DIR`: mounts COUNT images of one domain, each from a thread
//! - `umount DIR`
//! - `read PATH OFFSET LENGTH [random]`: prints what it has read
//! - `insist PATH OFFSET LENGTH SECONDS`: the same, block by block; what fails with EIO or ENOBUFS
//!   is read again for so many seconds
//! - `mockd ARGUMENTS`: the program of that name, with the device as standard input
//! - `close-beside-read ROUNDS`: reads the device, its standard input, into memory that cannot be
//!   written, while a thread closes the number that an anonymous file would have; prints how often
//!   that was refused, and how often something was closed
//! - `open-device PATH`: opens the device without `CAP_SYS_ADMIN`
//! - `serve IMAGES COUNT`: a daemon with the device as standard input, which is killed, by itself,
//!   when it has read COUNT messages and has not answered the last one (0: never)
//! - `serve-and-pass IMAGES DEATH`: the daemon of a [`Supervisor`](super::Supervisor), the socket to it as
//!   standard input
//! - `thaw-later DIR`: thaws a file system when its standard input ends, or after 20 seconds
//! - `hold`: waits to be killed, and holds its standard input open

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ondemand_deadline::Deadline;
use rustix::fs::Advice;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;
use rustix::thread::CapabilitySet;

use super::image::Images;
use super::Daemon;

/// How much is read at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// Runs one helper; the exit status is 0, or 1 with an errno on the standard error output.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    // A descriptor of the C module's is not close-on-exec.
    close_inherited();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["mount", options, dir] => mount(options, dir),
        ["mount-many", count, domain, dir] => mount_many(count, domain, dir),
        ["umount", dir] => rustix::mount::unmount(dir, UnmountFlags::empty()).map_err(Into::into),
        ["read", path, offset, length] => read(path, offset, length, Advice::Normal),
        ["read", path, offset, length, "random"] => read(path, offset, length, Advice::Random),
        ["insist", path, offset, length, seconds] => insist(path, offset, length, seconds),
        ["mockd", ..] => mockd(&arguments),
        ["close-beside-read", rounds] => close_beside_read(rounds),
        ["open-device", path] => open_without_capability(path),
        ["serve", images, count] => serve(images, count),
        ["serve-and-pass", images, death] => super::supervisor::serve_and_pass(images, death),
        ["thaw-later", dir] => thaw_later(dir),
        ["hold"] => hold(),
        _ => Err(anyhow::anyhow!("unknown helper {arguments:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<Errno>() {
                Some(errno) => eprintln!("errno {}", errno.raw_os_error()),
                None => eprintln!("{error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn close_inherited() {
    // SAFETY: Nothing has been opened yet, so that no owner of a descriptor above 2 exists.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

fn mount(options: &str, dir: &str) -> anyhow::Result<()> {
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount("none", dir, "erofs", MountFlags::RDONLY, options.as_c_str())?;
    Ok(())
}

fn mount_many(count: &str, domain: &str, dir: &str) -> anyhow::Result<()> {
    let count: u32 = count.parse()?;
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let options = format!("domain_id={domain},fsid=many{number}");
            let dir = dir.to_owned();
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || mount(&options, &dir))
        })
        .collect::<Result<_, _>>()?;
    for thread in threads {
        // Each may fail: the test never answers them.
        let _ = thread.join();
    }
    Ok(())
}

fn read(path: &str, offset: &str, length: &str, advice: Advice) -> anyhow::Result<()> {
    let file = File::open(path).map_err(errno)?;
    rustix::fs::fadvise(&file, 0, None, advice)?;
    let (mut at, mut rest): (u64, usize) = (offset.parse()?, length.parse()?);
    // What one system call asks for is read ahead even then.
    let most = match advice {
        Advice::Random => 4096,
        _ => CHUNK,
    };
    let mut chunk = vec![0; most];
    let mut output = std::io::stdout().lock();
    while rest > 0 {
        let want = rest.min(most);
        let len = file.read_at(&mut chunk[..want], at).map_err(errno)?;
        if len == 0 {
            break;
        }
        output.write_all(&chunk[..len])?;
        at += u64::try_from(len)?;
        rest -= len;
    }
    output.flush()?;
    Ok(())
}

fn insist(path: &str, offset: &str, length: &str, seconds: &str) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(10);
    let mut deadline = Deadline::after(Duration::from_secs(seconds.parse()?));
    let file = File::open(path).map_err(errno)?;
    rustix::fs::fadvise(&file, 0, None, Advice::Random)?;
    let (begin, length): (u64, u64) = (offset.parse()?, length.parse()?);
    let mut block = [0; 4096];
    let mut output = std::io::stdout().lock();
    for at in (begin..begin + length).step_by(block.len()) {
        loop {
            match rustix::io::pread(&file, &mut block, at) {
                Ok(len) => break output.write_all(&block[..len])?,
                Err(Errno::IO | Errno::NOBUFS) if !deadline.passed() => {
                    std::thread::park_timeout(PAUSE);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(output.flush()?)
}

fn mockd(arguments: &[&str]) -> anyhow::Result<()> {
    mockd::cli::Options::try_parse_from(arguments)?.run()
}

fn close_beside_read(rounds: &str) -> anyhow::Result<()> {
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    let page = super::raw::ForbiddenPage::new()?;
    let device = std::io::stdin();
    // The lowest that is free. Nothing is opened from here on.
    let next = rustix::io::fcntl_dupfd_cloexec(&device, 3)?.as_raw_fd();
    let stop = AtomicBool::new(false);
    let rounds: u32 = rounds.parse()?;
    let mut refused = 0;
    let closed = std::thread::scope(|scope| {
        let closer = scope.spawn(|| {
            let mut closed = 0;
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: Nobody in this process owns this number, whatever it may stand for.
                closed += u32::from(unsafe { libc::close(next) } == 0);
            }
            closed
        });
        for _ in 0..rounds {
            let read = super::raw::read_into(&device, &page);
            refused += u32::from(read == Err(Errno::FAULT));
        }
        stop.store(true, Ordering::Relaxed);
        closer.join()
    });
    let closed = closed.map_err(|_| anyhow::anyhow!("the closer panicked"))?;
    print!("{refused} {closed}");
    Ok(())
}

fn errno(error: std::io::Error) -> anyhow::Error {
    match Errno::from_io_error(&error) {
        Some(errno) => errno.into(),
        None => error.into(),
    }
}

fn open_without_capability(path: &str) -> anyhow::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_ADMIN);
    sets.permitted.remove(CapabilitySet::SYS_ADMIN);
    rustix::thread::set_capabilities(None, sets)?;
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(errno)?;
    Ok(())
}

fn serve(images: &str, count: &str) -> anyhow::Result<()> {
    let device = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut daemon = Daemon::from_device(cachefiles_proto::Device::from_owned_fd(device)?);
    let images = Images::in_directory(Path::new(images));
    for name in ["plain", "lz4", "small"] {
        daemon.images.push(images.get(name)?);
    }
    daemon.restore()?;
    let count: u32 = count.parse()?;
    for seen in 1_u32.. {
        let message = daemon.next_within(None)?;
        if seen == count {
            rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            )?;
        }
        daemon.answer(message)?;
    }
    Ok(())
}

fn thaw_later(dir: &str) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(20);
    // Whoever kills the test spares this process, and would wait for what is frozen otherwise.
    rustix::process::setsid()?;
    let dir = File::open(dir)?;
    println!("ready");
    // Nobody writes: it becomes readable at its end.
    super::wait::readable([&std::io::stdin()], &mut Deadline::after(PATIENCE))?;
    // Thawed already is as good.
    let _ = super::raw::thaw(&dir);
    Ok(())
}

fn hold() -> anyhow::Result<()> {
    loop {
        std::thread::park();
    }
}
