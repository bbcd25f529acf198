// SPDX-License-Identifier: MIT OR Apache-2.0

//! Blocks are read, and brought in.

use std::process::Stdio;

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Message;
use cachefiles_proto::Read;

use crate::faults::rig::After;
use crate::faults::rig::Rig;
use crate::faults::rig::Session;
use crate::harness::eventually;
use crate::harness::image::FILE;
use crate::harness::same;
use crate::harness::store::in_memory;
use crate::harness::store::object_file;
use crate::harness::Daemon;
use crate::harness::Task;
use crate::harness::SOON;

/// A block, in bytes.
const BLOCK: usize = 4096;

pub(super) fn read(rig: &mut Rig<'_>) -> Result<After> {
    let mut session = rig.session(false)?;
    rig.begin()?;
    let mut reader = next_block(rig, &session)?;
    let outcome = rig.serve(&mut session.daemon, &mut reader, |daemon, message| {
        let Message::Read(read) = &message else {
            return daemon.answer(message);
        };
        rig.aside(|| daemon.fill(read))?;
        complete(rig, daemon, read)
    });
    rig.end()?;
    let data = rig.judge("the reader", outcome?)?;
    compare(rig, &session, data.as_deref())?;
    works_again(rig, session, data.is_some())
}

pub(super) fn fill(rig: &mut Rig<'_>) -> Result<After> {
    let mut session = rig.session(false)?;
    let mut reader = next_block(rig, &session)?;
    let read = session.daemon.expect_read()?;
    rig.begin()?;
    let filled = session.daemon.fill(&read);
    if filled.is_ok() {
        complete(rig, &session.daemon, &read)?;
    }
    rig.end()?;
    if let Err(error) = filled {
        rig.blame("the fill", &format!("{error:#}"))?;
        if !rig.is_broken()? && rig.nth % 2 == 0 {
            session.daemon.fill(&read).context("the fill again")?;
        }
        // Without data, every second time: the reader must not get zeros.
        complete(rig, &session.daemon, &read)?;
    }
    end_read(rig, session, &mut reader)
}

pub(super) fn fill_buffered(rig: &mut Rig<'_>) -> Result<After> {
    let mut session = rig.session(true)?;
    let mut reader = next_block(rig, &session)?;
    let read = session.daemon.expect_read()?;
    let name = &session.mounted.name;
    let file = object_file(&rig.dir, &session.mounted.volume(), name)?;
    // What was filled before is on the disk.
    eventually("the file is there", SOON, || Ok(file.exists()))?;
    rig.begin()?;
    let filled = session.daemon.fill(&read);
    if filled.is_ok() {
        complete(rig, &session.daemon, &read)?;
        let settled = eventually("the data is on the disk", SOON, || {
            Ok(in_memory(&file)? == 0 || rig.injector.has_failed()?)
        });
        settled?;
    }
    rig.end()?;
    if let Err(error) = &filled {
        rig.blame("the fill", &format!("{error:#}"))?;
        complete(rig, &session.daemon, &read)?;
    }
    // What failed on its way to the disk ends all that reads the object, until it is mounted again.
    let outcome = rig.serve_on(&mut session.daemon, &mut reader)?;
    let data = rig.judge("the reader", outcome)?;
    compare(rig, &session, data.as_deref())?;
    if !rig.injector.has_failed()? {
        return works_again(rig, session, true);
    }
    let mounted = session.mounted.clone();
    drop(session);
    rig.unmount_all()?;
    if rig.is_broken()? {
        return Ok(After::Broken(mounted));
    }
    let mut daemon = rig.daemon(true)?;
    rig.visit(&mut daemon, &mounted).context("mounted again")?;
    Ok(After::Fine)
}

fn end_read(rig: &mut Rig<'_>, mut session: Session, reader: &mut Task) -> Result<After> {
    let outcome = rig.serve_on(&mut session.daemon, reader)?;
    let data = rig.judge("the reader", outcome)?;
    compare(rig, &session, data.as_deref())?;
    works_again(rig, session, data.is_some())
}

/// Begins to read the session's next block, which is not stored.
fn next_block(rig: &Rig<'_>, session: &Session) -> Result<Task> {
    rig.t.block_reader(&rig.at, session.block * BLOCK, BLOCK)
}

/// Begins to read the same block, which may be in memory and is not to be taken from there.
fn from_store(rig: &Rig<'_>, session: &Session) -> Result<Task> {
    let (path, at) = (rig.at.join(FILE), (session.block * BLOCK).to_string());
    let words = ["reread", &path.to_string_lossy(), &at, &BLOCK.to_string()];
    Task::start(&words, Stdio::null())
}

/// Completes a READ; once more if the fault has met that.
fn complete(rig: &Rig<'_>, daemon: &Daemon, read: &Read) -> Result<()> {
    daemon.complete(read).or_else(|error| {
        rig.blame("READ_COMPLETE", &format!("{error:#}"))?;
        // Its reader still waits.
        let file = &daemon.object(read.object_id)?.file;
        Ok(file.read_complete(read.msg_id)?)
    })
}

fn compare(rig: &Rig<'_>, session: &Session, data: Option<&[u8]>) -> Result<()> {
    let at = session.block * BLOCK;
    let wanted = rig.t.images.contents(session.mounted.image)?;
    match data {
        Some(data) => same("the block", data, &wanted[at..at + BLOCK]),
        None => Ok(()),
    }
}

/// The block can be read without a fault, from the daemon if it must, and from the store.
fn works_again(rig: &mut Rig<'_>, mut session: Session, was_read: bool) -> Result<After> {
    if rig.is_broken()? {
        return Ok(After::Broken(session.mounted));
    }
    let once = if was_read { 1 } else { 2 };
    for _ in 0..once {
        let mut reader = from_store(rig, &session)?;
        let data = session.daemon.serve(&mut reader)?.ok("read again")?;
        compare(rig, &session, Some(&data))?;
    }
    session.block += 1;
    rig.session = Some(session);
    Ok(After::Fine)
}
