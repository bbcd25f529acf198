// SPDX-License-Identifier: MIT OR Apache-2.0

//! The worker process as the keeper sees it, as far as that goes without a kernel module.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use ondemandd::counters::Counters;
use ondemandd::handover::Begin;
use ondemandd::handover::Channel;
use ondemandd::handover::HandoverError;
use ondemandd::handover::Word;
use ondemandd::handover::RESUMES;
use ondemandd::record::begin::for_bind;
use ondemandd::record::begin::Claim;
use ondemandd::record::FILE;

/// The deadline of what happens at once, on this machine.
fn soon() -> Duration {
    ondemand_deadline::scaled(Duration::from_secs(20))
}

fn start(source: &str) -> (Child, Channel) {
    // Below the build's own directory, with what other tests leave there.
    let cache = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap()
        .keep();
    let claim = Claim::new(&cache).unwrap().unwrap();
    for_bind(&claim, &cache).unwrap();
    start_with(source, &["--record".as_ref(), cache.join(FILE).as_os_str()])
}

fn start_with(source: &str, more: &[&OsStr]) -> (Child, Channel) {
    let (ours, theirs) = Channel::pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_ondemandd"))
        .args(["worker", "--threads=2", "--source", source])
        .args(more)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (child, ours)
}

/// Waits for a worker that gives up: the socket ends without a word.
fn end_of(child: Child, channel: &Channel) -> Output {
    let said = channel.receive_word(soon());
    assert!(
        matches!(said, Err(HandoverError::Closed | HandoverError::Receive(_))),
        "{said:?}"
    );
    child.wait_with_output().unwrap()
}

fn assert_gave_up(output: &Output, reason: &str) {
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains(reason), "{log}");
}

/// Sends what is no device, and counters, which are returned.
fn send_null(channel: &Channel) -> Counters {
    let null = std::fs::File::open("/dev/null").unwrap();
    let counters = Counters::create().unwrap();
    channel
        .send_device(null.as_fd(), counters.as_fd(), Begin::Restore)
        .unwrap();
    counters
}

#[test]
fn a_wrong_device_is_refused() {
    let (child, channel) = start("/");
    let counters = send_null(&channel);
    assert_gave_up(&end_of(child, &channel), "no misc device");
    assert_eq!(counters.snapshot().restores, 0);
}

#[test]
fn a_missing_source_is_named() {
    let (child, channel) = start("/nonexistent");
    let _counters = send_null(&channel);
    assert_gave_up(&end_of(child, &channel), "/nonexistent");
}

#[test]
fn a_successor_says_why_it_cannot_be_prepared() {
    let (child, channel) = start("/nonexistent");
    let null = std::fs::File::open("/dev/null").unwrap();
    let counters = Counters::create().unwrap();
    channel
        .send_device(null.as_fd(), counters.as_fd(), Begin::OnGo)
        .unwrap();
    match channel.receive_word(soon()).unwrap() {
        Word::Failed(reason) => assert!(reason.contains("/nonexistent"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_gave_up(&end_of(child, &channel), "/nonexistent");
}

/// It must not touch the device while another worker serves.
#[test]
fn a_successor_waits_until_it_is_told_to_begin() {
    // A misc device that is nearly everywhere, and that refuses every command.
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    let Ok(device) = device else {
        eprintln!("skipped: no /dev/fuse");
        return;
    };
    let counters = Counters::create().unwrap();
    let prepared = || {
        let (child, channel) = start("/");
        channel
            .send_device(device.as_fd(), counters.as_fd(), Begin::OnGo)
            .unwrap();
        let word = channel.receive_word(soon()).unwrap();
        assert_eq!(word, Word::Prepared { resumes: RESUMES });
        (child, channel)
    };
    // The keeper ends instead: then the old worker serves on, or nobody.
    let (child, channel) = prepared();
    drop(channel);
    let output = child.wait_with_output().unwrap();
    assert_gave_up(&output, "never told to begin");

    // `restore` is the first thing that it writes.
    let (child, channel) = prepared();
    channel.send_go().unwrap();
    let output = end_of(child, &channel);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("restore"), "{log}");
    assert_eq!(counters.snapshot().restores, 0);
}

#[test]
fn a_keeper_that_dies_first_leaves_nobody_behind() {
    let (child, channel) = start("/");
    drop(channel);
    let output = child.wait_with_output().unwrap();
    assert_gave_up(&output, "the other process has ended");
}

#[test]
fn a_keeper_that_keeps_no_record_is_refused() {
    // An older one, with a device that is one.
    let Ok(device) = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
    else {
        eprintln!("skipped: no /dev/fuse");
        return;
    };
    let (child, channel) = start_with("/", &[]);
    let counters = Counters::create().unwrap();
    channel
        .send_device(device.as_fd(), counters.as_fd(), Begin::OnGo)
        .unwrap();
    match channel.receive_word(soon()).unwrap() {
        Word::Failed(reason) => assert!(reason.contains("restart the service"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_gave_up(&end_of(child, &channel), "keeps no record");
}
