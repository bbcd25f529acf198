// SPDX-License-Identifier: MIT OR Apache-2.0

//! `fetch BYTES`: READs of whole windows, each asked for once.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Message;
use rustix::io::Errno;

use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Image;
use crate::harness::Outcome;
use crate::harness::Stops;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "fetch_command",
        "a window that cannot be, or that is set too late",
        command,
    ),
    Test::new(
        "fetch_whole_windows",
        "a READ of less than its windows, of more than the object, or of what is stored",
        whole_windows,
    ),
    Test::new(
        "fetch_once",
        "a window that is asked for again by each reader who misses it",
        once,
    ),
    Test::new(
        "d60_stop_fetch_one_stands_still",
        "readers that wait, though all is there, for another reader that is frozen or throttled",
        one_stands_still,
    ),
    Test::new(
        "d60_fetch_who_asks_is_killed",
        "a READ that ends with the reader for whom it was sent, while others wait for it",
        who_asks_is_killed,
    ),
    Test::new(
        "fetch_all_are_killed",
        "a READ that outlives the last of its readers",
        all_are_killed,
    ),
    Test::new(
        "fetch_answer_without_data",
        "readers that wait, or ask, for ever for what does not come",
        answer_without_data,
    ),
    Test::new(
        "fetch_survives_the_daemon",
        "a window that nobody asks for any more after the daemon has died",
        survives_the_daemon,
    ),
];

const WINDOW: u32 = 64 << 10;
const WINDOW_LEN: u64 = WINDOW as u64;

/// A daemon whose READs ask for windows, and an image that is mounted and of which nothing but what the
/// mount needs is stored.
struct Mounted {
    daemon: Daemon,
    image: Arc<Image>,
    at: PathBuf,
    contents: Vec<u8>,
    /// Where the file begins in the image.
    start: u64,
}

fn mounted(t: &Context) -> Result<Mounted> {
    let mut daemon = t.daemon_with(&t.new_dir()?, &[Command::Fetch(WINDOW)], &["plain"])?;
    let image = Arc::clone(&daemon.images[0]);
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let contents = t.images.contents("plain")?;
    let start = image.find(&contents[..4096])?;
    daemon.log.clear();
    Ok(Mounted {
        daemon,
        image,
        at,
        contents,
        start,
    })
}

impl Mounted {
    /// Begins to read one block of the file: that at `at` of the image, which is in the file.
    fn reader(&self, t: &Context, at: u64) -> Result<Task> {
        let offset = usize::try_from(at - self.start)?;
        t.block_reader(&self.at, offset, 4096)
    }

    /// Compares what was read there.
    fn compare(&self, at: u64, data: &[u8]) -> Result<()> {
        let offset = usize::try_from(at - self.start)?;
        same("the block", data, &self.contents[offset..offset + 4096])
    }

    /// A window that nothing is stored of.
    fn empty_window(&self, number: u64) -> u64 {
        (self.start.next_multiple_of(WINDOW_LEN)) + number * WINDOW_LEN
    }
}

fn command(t: &Context) -> Result<()> {
    let device = t.device()?;
    // A module that does not have it says so.
    device.send(&Command::Fetch(WINDOW))?;
    for text in [
        "fetch 2048",
        "fetch 12288",
        "fetch 134217728",
        "fetch 64k",
        "fetch",
    ] {
        let result = device.write_bytes(text.as_bytes());
        expect_errno(text, result, &[Errno::INVAL])?;
    }
    device.send(&Command::Fetch(WINDOW))?;
    // The last one counts.
    device.send(&Command::Fetch(0))?;
    device.send(&Command::Dir(t.new_dir()?))?;
    device.send(&Command::BindOnDemand)?;
    let busy = errno_of(device.send(&Command::Fetch(WINDOW)))?;
    ensure!(busy == Some(Errno::BUSY), "after bind: {busy:?}");
    let mut daemon = Daemon::from_device(device);
    daemon.images.push(t.images.get("plain")?);
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    daemon.log.clear();
    let mut reader = t.block_reader(&at, 512 << 10, 4096)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let reads = daemon.reads();
    ensure!(
        reads.iter().all(|(_, len)| *len == 4096),
        "without windows: {reads:?}"
    );
    Ok(())
}

fn whole_windows(t: &Context) -> Result<()> {
    let mut m = mounted(t)?;
    let window = m.empty_window(1);
    let missed = window + 5 * 4096;
    let mut reader = m.reader(t, missed)?;
    let read = m.daemon.expect_read()?;
    ensure!(
        (read.off, read.len) == (window, WINDOW_LEN),
        "asked for {read:?}, not for the window at {window}"
    );
    m.daemon.answer_read(&read)?;
    let data = m.daemon.serve(&mut reader)?.ok("read")?;
    m.compare(missed, &data)?;

    // Of a window that is stored in part, what is missing around the block.
    let window = m.empty_window(3);
    let object = m.daemon.object(read.object_id)?;
    for at in [window + 4096, window + 8 * 4096] {
        object.file.write_all_at(m.image.range(at, 4096), at)?;
    }
    let missed = window + 5 * 4096;
    let mut reader = m.reader(t, missed)?;
    let read = m.daemon.expect_read()?;
    ensure!(
        (read.off, read.len) == (window + 2 * 4096, 6 * 4096),
        "asked for {read:?} of the window at {window}, of which blocks 1 and 8 are stored"
    );
    m.daemon.answer_read(&read)?;
    let data = m.daemon.serve(&mut reader)?.ok("read")?;
    m.compare(missed, &data)?;

    // The last window ends with the object.
    let end = m.image.size.next_multiple_of(4096);
    let last = m.start + u64::try_from(m.contents.len())? - 4096;
    let mut reader = m.reader(t, last)?;
    let read = m.daemon.expect_read()?;
    ensure!(
        read.off == last - last % WINDOW_LEN && read.off + read.len == end,
        "asked for {read:?} of an image that ends at {end}"
    );
    m.daemon.answer_read(&read)?;
    let data = m.daemon.serve(&mut reader)?.ok("read")?;
    m.compare(last, &data)
}

/// Readers of different blocks of one window, all of which wait for it; the first is the one who asks.
fn waiting(t: &Context, m: &mut Mounted, window: u64) -> Result<Vec<(u64, Task)>> {
    let first = (window, m.reader(t, window)?);
    eventually("a READ", SOON, || m.daemon.has_message())?;
    let mut readers = vec![first];
    for block in 1..5 {
        let at = window + block * 4096;
        readers.push((at, m.reader(t, at)?));
    }
    let pread = libc::SYS_pread64;
    eventually("all readers wait", SOON, || {
        Ok(readers.iter().all(|(_, task)| task.blocked_in(pread)))
    })?;
    Ok(readers)
}

fn once(t: &Context) -> Result<()> {
    let mut m = mounted(t)?;
    let window = m.empty_window(2);
    let readers = waiting(t, &mut m, window)?;
    let read = m.daemon.expect_read()?;
    m.daemon.expect_nothing()?;
    m.daemon.answer_read(&read)?;
    for (at, mut reader) in readers {
        let data = m.daemon.serve(&mut reader)?.ok("read")?;
        m.compare(at, &data)?;
    }
    let reads = m.daemon.reads();
    ensure!(
        reads == [(window, WINDOW_LEN)],
        "asked more than once: {reads:?}"
    );
    Ok(())
}

fn one_stands_still(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let mut m = mounted(t)?;
    let window = m.empty_window(2);
    let mut readers = waiting(t, &mut m, window)?;
    let read = m.daemon.expect_read()?;
    stops.stop("read-ended")?;
    m.daemon.answer_read(&read)?;
    stops.wait_parked("read-ended")?;
    // It does not matter which of them it is.
    let ended = eventually("all readers but one have ended", SOON, || {
        let mut running = 0;
        for (_, reader) in &readers {
            running += u32::from(reader.running()?);
        }
        Ok(running == 1)
    });
    // The daemon's files do not close before it goes on.
    stops.go("read-ended")?;
    ended?;
    for (at, reader) in &mut readers {
        let data = m.daemon.serve(reader)?.ok("read")?;
        m.compare(*at, &data)?;
    }
    ensure!(m.daemon.reads().len() == 1, "asked more than once");
    Ok(())
}

fn who_asks_is_killed(t: &Context) -> Result<()> {
    let mut m = mounted(t)?;
    let window = m.empty_window(2);
    let mut readers = waiting(t, &mut m, window)?;
    let read = m.daemon.expect_read()?;
    let (_, mut asking) = readers.remove(0);
    asking.kill()?;
    asking.wait(SOON)?;
    m.daemon.expect_nothing()?;
    m.daemon.fill(&read)?;
    let file = &m.daemon.object(read.object_id)?.file;
    file.read_complete(read.msg_id)
        .context("the answer for those who are left")?;
    for (at, mut reader) in readers {
        let data = m.daemon.serve(&mut reader)?.ok("read")?;
        m.compare(at, &data)?;
    }
    let reads = m.daemon.reads();
    ensure!(
        reads == [(window, WINDOW_LEN)],
        "asked more than once: {reads:?}"
    );
    Ok(())
}

fn all_are_killed(t: &Context) -> Result<()> {
    let mut m = mounted(t)?;
    let window = m.empty_window(2);
    let readers = waiting(t, &mut m, window)?;
    let read = m.daemon.expect_read()?;
    for (_, mut reader) in readers {
        m.daemon.expect_nothing()?;
        reader.kill()?;
        reader.wait(SOON)?;
    }
    m.daemon.expect_nothing()?;
    let file = &m.daemon.object(read.object_id)?.file;
    let late = errno_of(file.read_complete(read.msg_id))?;
    ensure!(late == Some(Errno::INVAL), "a late answer: {late:?}");
    // The next one is asked for, as if nothing had been.
    let mut reader = m.reader(t, window)?;
    let again = m.daemon.expect_read()?;
    ensure!(
        (again.off, again.len) == (window, WINDOW_LEN) && again.msg_id != read.msg_id,
        "asked for {again:?}"
    );
    m.daemon.answer_read(&again)?;
    let data = m.daemon.serve(&mut reader)?.ok("read")?;
    m.compare(window, &data)
}

/// Answers each READ without data, until the reader has ended.
fn refuse(m: &mut Mounted, reader: &mut Task) -> Result<Outcome> {
    m.daemon.serve_with(reader, |daemon, message| {
        let Message::Read(read) = message else {
            bail!("not a READ: {message:?}");
        };
        let file = &daemon.object(read.object_id)?.file;
        Ok(file.read_complete(read.msg_id)?)
    })
}

fn answer_without_data(t: &Context) -> Result<()> {
    let mut m = mounted(t)?;
    let window = m.empty_window(2);
    // The kernel reads a block again, by itself, whose reading ahead has failed.
    for (_, mut reader) in waiting(t, &mut m, window)? {
        refuse(&mut m, &mut reader)?.fails("read", &[Errno::IO])?;
    }
    m.daemon.expect_nothing()?;
    // A part of the window is enough for who needs no more.
    let readers = waiting(t, &mut m, window)?;
    let read = m.daemon.expect_read()?;
    let object = m.daemon.object(read.object_id)?;
    let part = m.image.range(window, 3 * 4096);
    object.file.write_all_at(part, window)?;
    object.file.read_complete(read.msg_id)?;
    for (at, mut reader) in readers {
        let outcome = refuse(&mut m, &mut reader)?;
        if at < window + 3 * 4096 {
            m.compare(at, &outcome.ok("read")?)?;
        } else {
            outcome.fails("read", &[Errno::IO])?;
        }
    }
    Ok(())
}

fn survives_the_daemon(t: &Context) -> Result<()> {
    let mut m = mounted(t)?;
    let window = m.empty_window(2);
    let readers = waiting(t, &mut m, window)?;
    m.daemon.expect_read()?;
    // As if it had been killed: its files close, another process holds the device.
    m.daemon.open.clear();
    m.daemon.restore()?;
    for (at, mut reader) in readers {
        let data = m.daemon.serve(&mut reader)?.ok("read")?;
        m.compare(at, &data)?;
    }
    let reads = m.daemon.reads();
    ensure!(
        reads == [(window, WINDOW_LEN); 2],
        "not once by each daemon: {reads:?}"
    );
    Ok(())
}
