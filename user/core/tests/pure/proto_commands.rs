// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the daemon's library writes, the module understands, and in the same sense.
//!
//! Both sides were written apart from each other, from the protocol. Would catch: a number, a word or
//! a limit on which they disagree.

use cachefiles_proto as proto;
use ondemand_core::daemon::command;
use ondemand_core::daemon::command::Command;
use ondemand_core::daemon::command::CopenAnswer;
use ondemand_core::daemon::command::Mode;
use ondemand_core::errno::Errno;
use ondemand_core::identity::Token;
use ondemand_core::identity::Version;
use ondemand_core::limits::Mark;
use ondemand_core::limits::Resource;
use proptest::prelude::*;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

const LIMITS: [(proto::Limit, Resource, Mark); 6] = [
    (proto::Limit::BlocksRun, Resource::Blocks, Mark::Run),
    (proto::Limit::BlocksCull, Resource::Blocks, Mark::Cull),
    (proto::Limit::BlocksStop, Resource::Blocks, Mark::Stop),
    (proto::Limit::FilesRun, Resource::Files, Mark::Run),
    (proto::Limit::FilesCull, Resource::Files, Mark::Cull),
    (proto::Limit::FilesStop, Resource::Files, Mark::Stop),
];

#[test]
fn the_longest_command_is_the_same() {
    assert_eq!(proto::MAX_COMMAND_LEN, command::MAX_COMMAND);
}

#[test]
fn words() {
    for (sent, expected) in [
        (proto::Command::Bind, Command::Bind(Mode::Plain)),
        (proto::Command::BindOnDemand, Command::Bind(Mode::OnDemand)),
        (proto::Command::Restore, Command::Restore),
        (proto::Command::Timeout(0), Command::Timeout(0)),
        (proto::Command::Timeout(90), Command::Timeout(90)),
        (proto::Command::Fetch(0), Command::Fetch(0)),
        (proto::Command::Batch(1), Command::Batch(1)),
        (
            proto::Command::Batch(proto::MAX_BATCH),
            Command::Batch(command::MAX_BATCH),
        ),
        (
            proto::Command::Fill(proto::Fill::Direct),
            Command::Fill(command::Fill::Direct),
        ),
        (
            proto::Command::Fill(proto::Fill::Buffered),
            Command::Fill(command::Fill::Buffered),
        ),
        (
            proto::Command::Fetch(proto::MIN_FETCH),
            Command::Fetch(command::MIN_FETCH),
        ),
        (
            proto::Command::Fetch(proto::MAX_FETCH),
            Command::Fetch(command::MAX_FETCH),
        ),
        (
            proto::Command::Timeout(proto::MAX_TIMEOUT),
            Command::Timeout(command::MAX_TIMEOUT),
        ),
    ] {
        assert_eq!(command::parse(&sent.encode().unwrap()), Ok(expected));
    }
}

proptest! {
    #[test]
    fn texts(text in prop::collection::vec(any::<u8>(), 0..64)) {
        let own = || OsString::from_vec(text.clone());
        for (sent, expected) in [
            (proto::Command::Dir(own().into()), Command::Dir(&text)),
            (proto::Command::Tag(own()), Command::Tag(&text)),
            (proto::Command::SecurityContext(own()), Command::SecurityContext(&text)),
        ] {
            if let Ok(line) = sent.encode() {
                prop_assert_eq!(command::parse(&line), Ok(expected));
            }
        }
        for (sent, expected) in [
            (proto::Command::Cull(own()), Command::Cull(&text)),
            (proto::Command::InUse(own()), Command::InUse(&text)),
        ] {
            if let Ok(line) = sent.encode() {
                let entry = text != b"." && text != b".." && !text.contains(&b'/');
                prop_assert_eq!(command::parse(&line), if entry { Ok(expected) } else { Err(Errno::EINVAL) });
            }
        }
    }

    #[test]
    fn numbers(percent: u8, mask: u32) {
        for (limit, resource, mark) in LIMITS {
            if let Ok(line) = (proto::Command::Limit { limit, percent }).encode() {
                let expected = Command::Limit { resource, mark, percent };
                prop_assert_eq!(command::parse(&line), Ok(expected));
            } else {
                prop_assert!(percent >= 100);
            }
        }
        let line = proto::Command::Debug(mask).encode().unwrap();
        prop_assert_eq!(command::parse(&line), Ok(Command::Debug(mask)));
    }

    #[test]
    fn sizes(msg_id: u32, size in 0..=i64::MAX.unsigned_abs()) {
        let answer = proto::OpenAnswer::Size(size);
        let line = proto::Command::Copen { msg_id, answer }.encode().unwrap();
        let token = Token::UNTOLD;
        let answer = CopenAnswer::Version(Version { size, token });
        prop_assert_eq!(command::parse(&line), Ok(Command::Copen { msg_id, answer }));
    }

    #[test]
    fn tokens(size in 0..=i64::MAX.unsigned_abs(), bytes in prop::collection::vec(any::<u8>(), 1..=64)) {
        let answer = proto::OpenAnswer::Version { size, token: proto::Token::new(&bytes).unwrap() };
        let line = proto::Command::Copen { msg_id: 7, answer }.encode().unwrap();
        let token = Token::of_bytes(&bytes).unwrap();
        let answer = CopenAnswer::Version(Version { size, token });
        prop_assert_eq!(command::parse(&line), Ok(Command::Copen { msg_id: 7, answer }));
    }
}
