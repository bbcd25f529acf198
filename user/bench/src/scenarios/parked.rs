// SPDX-License-Identifier: MIT OR Apache-2.0

//! S8: what `poll` and a `read` that finds nothing cost, while many READs wait for objects to be
//! opened again, and while none does.

use std::thread;
use std::time::Duration;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Result;
use cachefiles_proto::Buffer;
use cachefiles_proto::Device;
use cachefiles_proto::Message;
use cachefiles_proto::Open;
use cachefiles_proto::Readiness;
use cachefiles_proto::MAX_MESSAGE_LEN;

use crate::session::drop_caches;
use crate::session::Session;
use crate::session::Watch;
use crate::times::float;
use crate::times::now;
use crate::work::figure;
use crate::work::Work;

use super::domain::Domain;

/// How long, at most, one kind of call is repeated.
const LONG_ENOUGH: Duration = Duration::from_millis(300);

/// How often, at most.
const OFTEN_ENOUGH: u32 = 50_000;

/// Calls between two looks at the clock.
const BATCH: u32 = 20;

/// Runs it.
///
/// # Errors
///
/// The device, a mount or a read fails; there is a message where none should be.
pub(super) fn run(work: &Work, watch: &Watch) -> Result<()> {
    let reads = work.size(10_000, 1000);
    drop_caches()?;
    let session = Session::begin(work, watch)?;
    let lines = session.serve([])?;
    let domain = Domain::mount(work)?;
    // With the daemon all objects are closed.
    session.kill()?;
    drop(lines);
    let (poll, read) = cost(&session)?;
    figure("poll_ns", poll)?;
    figure("read_ns", read)?;
    thread::scope(|scope| -> Result<()> {
        let readers = domain.read(scope, reads)?;
        readers.wait_until_blocked()?;
        // Their OPENs are taken and not answered.
        let opens = take_opens(&session, domain.objects())?;
        let (poll_parked, read_parked) = cost(&session)?;
        figure("poll_growth", poll_parked / poll)?;
        figure("read_growth", read_parked / read)?;
        session.close();
        drop(opens);
        readers.end();
        Ok(())
    })?;
    domain.unmount()
}

/// Takes an OPEN for each object.
fn take_opens(session: &Session<'_>, objects: usize) -> Result<Vec<Open>> {
    let mut opens = Vec::new();
    let mut buffer = Buffer::new();
    while opens.len() < objects {
        match session.device(|device| device.read_message(&mut buffer))?? {
            Some(Message::Open(open)) => opens.push(open),
            Some(other) => bail!("{other:?}, not an OPEN"),
            // The kernel works at it.
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
    Ok(opens)
}

/// What a `poll` and a `read` cost, in nanoseconds, while there is no message.
fn cost(session: &Session<'_>) -> Result<(f64, f64)> {
    let poll = repeat(session, |device| {
        let ready = device.wait(Readiness::MESSAGE, Some(Duration::ZERO))?;
        ensure!(!ready.message, "poll says that there is a message");
        Ok(())
    })?;
    let mut buffer = [0; MAX_MESSAGE_LEN];
    let read = repeat(session, |device| {
        let len = device.read_bytes(&mut buffer)?;
        ensure!(len == 0, "there is a message");
        Ok(())
    })?;
    Ok((poll, read))
}

fn repeat(session: &Session<'_>, mut call: impl FnMut(&Device) -> Result<()>) -> Result<f64> {
    // The first ones pay for what is not in the processor's caches.
    session.device(|device| (0..BATCH).try_for_each(|_| call(device)))??;
    let begun = now();
    let mut calls = 0;
    while calls < OFTEN_ENOUGH && now() - begun < LONG_ENOUGH {
        session.device(|device| (0..BATCH).try_for_each(|_| call(device)))??;
        calls += BATCH;
    }
    let time = u64::try_from((now() - begun).as_nanos())?;
    Ok(float(time) / f64::from(calls))
}
