// SPDX-License-Identifier: MIT OR Apache-2.0

//! OPENs and their answers.

use std::process::Stdio;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Buffer;
use cachefiles_proto::Message;
use cachefiles_proto::Open;
use ondemand_deadline::scaled;
use rustix::event::epoll;
use rustix::event::Timespec;
use rustix::io::Errno;

use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::without_descriptors;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Outcome;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d12_kill_mount_with_open_unanswered",
        "a mount that cannot be killed while the daemon says nothing",
        kill_mount,
    ),
    Test::new(
        "d15_file_is_close_on_exec",
        "a descriptor that programs inherit and keep the cache open with",
        close_on_exec,
    ),
    Test::new(
        "d16_no_descriptor_left",
        "an OPEN that fails for good because no descriptor was free",
        no_descriptor_left,
    ),
    Test::new(
        "d16_edge_after_failed_delivery",
        "an edge-triggered daemon that is not told of a message which was put back",
        edge_after_failed_delivery,
    ),
    Test::new(
        "d18_many_unanswered_opens",
        "unanswered OPENs that keep others from being sent",
        many_unanswered,
    )
    .within(180),
    Test::new(
        "d19_copen_after_close",
        "a copen that is accepted though its file was closed",
        copen_after_close,
    ),
    Test::new(
        "d22_write_and_seek_at_once",
        "a file that cannot be used around copen",
        write_and_seek_at_once,
    ),
    Test::new(
        "d27_copen_sizes",
        "sizes that are accepted and fail later, or in another form",
        copen_sizes,
    )
    .within(120),
    Test::new(
        "open_wrong_ids",
        "a copen that answers something else than its OPEN",
        wrong_ids,
    ),
    Test::new(
        "open_answered_before_delivery",
        "a copen that answers an OPEN which nobody has read",
        answered_before_delivery,
    ),
    Test::new(
        "open_refused",
        "a refusal that is not passed on, or sticks",
        refused,
    ),
    Test::new(
        "open_malformed_answer_ends",
        "a mount that waits for an answer that was given",
        malformed_answer_ends,
    ),
];

/// Begins a mount of `small` and reads its OPEN.
fn pending_open(t: &Context, daemon: &mut Daemon) -> Result<(Task, Open)> {
    let mount = t.mount("fsid=small", &t.mount_point()?)?;
    let open = daemon.expect_open()?;
    Ok((mount, open))
}

fn kill_mount(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let (mut mount, open) = pending_open(t, &mut daemon)?;
    eventually("the mount waits", SOON, || Ok(mount.blocked()))?;
    mount.kill()?;
    let outcome = mount.wait(SOON)?;
    ensure!(outcome == Outcome::Killed(9), "{outcome:?}");
    // Its OPEN may still be answered or not; the next mount is served either way.
    let late = daemon.copen(open.msg_id, 4096);
    ensure!(
        matches!(late, Ok(()) | Err(Errno::INVAL | Errno::BADFD)),
        "late copen: {late:?}"
    );
    drop(open);
    t.mounted(&mut daemon, "fsid=small")?;
    Ok(())
}

fn close_on_exec(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    eventually("an OPEN", SOON, || daemon.has_message())?;
    // Below the harness, which sets the flag itself.
    let Some(Message::Open(open)) = daemon.device.read_message(&mut Buffer::new())? else {
        bail!("no OPEN");
    };
    ensure!(
        Daemon::close_on_exec(&open.file)?,
        "the anonymous file is not close-on-exec"
    );
    let image = daemon.images[0].clone();
    daemon.accept(open, &image)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    Ok(())
}

fn no_descriptor_left(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    eventually("an OPEN", SOON, || daemon.has_message())?;
    for _ in 0..2 {
        let read = without_descriptors(|| daemon.read())?;
        let error = read.err().context("read without a free descriptor")?;
        let errno = error
            .downcast_ref::<cachefiles_proto::Error>()
            .and_then(cachefiles_proto::Error::errno);
        ensure!(errno == Some(Errno::MFILE), "{error}");
        ensure!(daemon.has_message()?, "the OPEN is gone");
    }
    daemon.serve(&mut mount)?.ok("mount")?;
    Ok(())
}

fn edge_after_failed_delivery(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&poller, &daemon.device, epoll::EventData::new_u64(1), edges)?;
    let soon = Timespec::try_from(scaled(SOON))?;
    let mut events = Vec::with_capacity(4);
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    epoll::wait(
        &poller,
        rustix::buffer::spare_capacity(&mut events),
        Some(&soon),
    )?;
    ensure!(events.len() == 1, "no edge for the OPEN");
    let read = without_descriptors(|| daemon.read())?;
    ensure!(read.is_err(), "read without a free descriptor: {read:?}");
    events.clear();
    epoll::wait(
        &poller,
        rustix::buffer::spare_capacity(&mut events),
        Some(&soon),
    )?;
    ensure!(events.len() == 1, "no edge for the OPEN that was put back");
    daemon.serve(&mut mount)?.ok("mount")?;
    Ok(())
}

/// Mounts 300 images of the domain `d`, which nobody has, and fetches their OPENs.
pub(super) fn many_openings(t: &Context, daemon: &mut Daemon) -> Result<(Task, Vec<Open>)> {
    const MANY: usize = 300;
    let dir = t.mount_point()?;
    let path = dir.to_string_lossy();
    let arguments = ["mount-many", &MANY.to_string(), "d", &path];
    let many = Task::start(&arguments, Stdio::null())?;
    let mut opens = Vec::new();
    for number in 0..MANY {
        let open = daemon
            .expect_open()
            .with_context(|| format!("after {number} OPENs"))?;
        opens.push(open);
    }
    Ok((many, opens))
}

fn many_unanswered(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let (mut many, opens) = many_openings(t, &mut daemon)?;
    t.mounted(&mut daemon, "domain_id=d,fsid=small")?;
    for open in &opens {
        daemon
            .copen_error(open.msg_id, Errno::NOENT)
            .context("copen of one of the many")?;
    }
    drop(opens);
    daemon.serve(&mut many)?.ok("the many mounts")?;
    Ok(())
}

fn copen_after_close(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let (mut mount, open) = pending_open(t, &mut daemon)?;
    let (msg_id, file) = (open.msg_id, open.file);
    drop(file);
    expect_errno("copen", daemon.copen(msg_id, 16384), &[Errno::BADFD])?;
    mount.wait(SOON)?.fails("mount", MOUNT_FAILS)?;
    expect_errno("copen again", daemon.copen(msg_id, 16384), &[Errno::INVAL])?;
    t.mounted(&mut daemon, "fsid=small")?;
    Ok(())
}

fn write_and_seek_at_once(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["plain"])?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    let open = daemon.expect_open()?;
    let image = daemon.images[0].clone();
    let file = &open.file;
    let data = file.seek_data(0).context("lseek before copen")?;
    ensure!(data.is_none(), "data at {data:?} in a new object");
    file.write_all_at(image.range(0, 4096), 0)
        .context("pwrite before copen")?;
    let object_id = daemon.accept(open, &image)?;
    let file = &daemon.object(object_id)?.file;
    file.write_all_at(image.range(4096, 4096), 4096)
        .context("pwrite right after copen")?;
    let hole = file.seek_hole(0).context("lseek right after copen")?;
    ensure!(hole == Some(8192), "the first hole is at {hole:?}");
    daemon.serve(&mut mount)?.ok("mount")?;
    for (off, _) in daemon.reads() {
        ensure!(off >= 8192, "READ at {off}, which was written before");
    }
    Ok(())
}

fn copen_sizes(t: &Context) -> Result<()> {
    const S_MAXBYTES: u64 = 0xfff_ffff_f000;
    let over = [
        (1_u64 << 63) - 1,
        (1 << 63) - 4096,
        S_MAXBYTES + 1,
        S_MAXBYTES + 4096,
    ]
    .map(|size| (size.to_string(), Some(Errno::INVAL)));
    let texts = [
        "-4096",
        "-9223372036854775808",
        "9223372036854775808",
        "0x10",
        "1 ",
        "",
        "1,1",
        "x",
        "+1",
        "-0",
        "-",
    ]
    .map(|text| (text.to_owned(), Some(Errno::INVAL)));
    let good = ["0", "-1", "-4095"].map(|text| (text.to_owned(), None));
    let mut daemon = t.daemon(&["small"])?;
    for (text, expected) in over.into_iter().chain(texts).chain(good) {
        let mut mount = t.mount("domain_id=d,fsid=small", &t.mount_point()?)?;
        let open = daemon
            .expect_open()
            .with_context(|| format!("before size \"{text}\""))?;
        let what = format!("copen {},{text}", open.msg_id);
        match expected {
            Some(errno) => expect_errno(&what, daemon.command(&what), &[errno])?,
            None => daemon.command(&what).with_context(|| what.clone())?,
        }
        // Also with an accepted size of 0: there is no superblock then.
        drop(open);
        let outcome = daemon.serve_with(&mut mount, |daemon, message| match message {
            Message::Open(open) => bail!("{what}: another OPEN {}", open.msg_id),
            // Complete without data: beyond the end there is none.
            Message::Read(read) => bail!("{what}: READ {read:?} {:?}", daemon.log),
            Message::Close(_) => Ok(()),
        })?;
        ensure!(!matches!(outcome, Outcome::Done(_)), "{what}: mounted");
    }
    t.mounted(&mut daemon, "domain_id=d,fsid=small")?;
    Ok(())
}

fn wrong_ids(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let (mut mount, open) = pending_open(t, &mut daemon)?;
    let image = daemon.images[0].clone();
    let stale = open.msg_id;
    for id in [open.msg_id + 1, open.msg_id + 1000, u32::MAX] {
        expect_errno(
            format!("copen {id}"),
            daemon.copen(id, 4096),
            &[Errno::INVAL],
        )?;
    }
    daemon.accept(open, &image)?;
    let copen = daemon.copen(stale, 4096);
    expect_errno("copen again", copen, &[Errno::INVAL])?;
    let read = daemon.expect_read()?;
    let copen = daemon.copen(read.msg_id, 4096);
    expect_errno("copen of a READ", copen, &[Errno::INVAL])?;
    let copen = daemon.copen_error(read.msg_id, Errno::IO);
    expect_errno("copen of a READ with an error", copen, &[Errno::INVAL])?;
    daemon.answer_read(&read)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    Ok(())
}

fn answered_before_delivery(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    eventually("an OPEN", SOON, || daemon.has_message())?;
    expect_errno("copen", daemon.copen(0, 16384), &[Errno::INVAL])?;
    let copen = daemon.copen_error(0, Errno::NOENT);
    expect_errno("copen with an error", copen, &[Errno::INVAL])?;
    ensure!(daemon.has_message()?, "the OPEN is gone");
    daemon.serve(&mut mount)?.ok("mount")?;
    Ok(())
}

fn refused(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&[])?;
    // As daemons do it: the file is closed, then the OPEN answered.
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    let allowed = [Errno::IO, Errno::NOBUFS, Errno::NOENT];
    daemon.serve(&mut mount)?.fails("mount", &allowed)?;
    // The other way round.
    let (mut mount, open) = pending_open(t, &mut daemon)?;
    daemon.copen_error(open.msg_id, Errno::NOENT)?;
    mount.wait(SOON)?.fails("mount", &allowed)?;
    drop(open);
    // A refusal is no state that stays.
    daemon.images.push(t.images.get("small")?);
    t.mounted(&mut daemon, "fsid=small")?;
    Ok(())
}

fn malformed_answer_ends(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let (mut mount, open) = pending_open(t, &mut daemon)?;
    let text = format!("copen {},abc", open.msg_id);
    expect_errno(&text, daemon.command(&text), &[Errno::INVAL])?;
    mount.wait(SOON)?.fails("mount", MOUNT_FAILS)?;
    let text = format!("copen {},16384", open.msg_id);
    expect_errno(&text, daemon.command(&text), &[Errno::INVAL])?;
    // The file may be closed late without doing any harm.
    drop(open);
    ensure!(errno_of(t.device())? == Some(Errno::BUSY), "not busy");
    t.mounted(&mut daemon, "fsid=small")?;
    Ok(())
}
