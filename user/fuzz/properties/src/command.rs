// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands of the device (`daemon/command.rs`): exactly those are taken that the protocol
//! allows, in the same sense, and what the daemon's library writes for one is read as that one.

use cachefiles_proto as proto;
use ondemand_core::daemon::command::parse;
use ondemand_core::daemon::command::Command;
use ondemand_core::daemon::command::CopenAnswer;
use ondemand_core::daemon::command::Fill;
use ondemand_core::daemon::command::Mode;
use ondemand_core::errno::Errno;
use ondemand_core::identity::Token;
use ondemand_core::identity::Version;
use ondemand_core::limits::Mark;
use ondemand_core::limits::Resource;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

const LIMITS: [(&str, proto::Limit, Resource, Mark); 6] = [
    ("brun", proto::Limit::BlocksRun, Resource::Blocks, Mark::Run),
    (
        "bcull",
        proto::Limit::BlocksCull,
        Resource::Blocks,
        Mark::Cull,
    ),
    (
        "bstop",
        proto::Limit::BlocksStop,
        Resource::Blocks,
        Mark::Stop,
    ),
    ("frun", proto::Limit::FilesRun, Resource::Files, Mark::Run),
    (
        "fcull",
        proto::Limit::FilesCull,
        Resource::Files,
        Mark::Cull,
    ),
    (
        "fstop",
        proto::Limit::FilesStop,
        Resource::Files,
        Mark::Stop,
    ),
];

/// Digits only, read by the standard library.
fn digits(text: &str, radix: u32) -> Option<u64> {
    text.chars()
        .all(|c| c.is_digit(radix))
        .then(|| u64::from_str_radix(text, radix).ok())?
}

/// The same, without zeros before.
fn plain(text: &str) -> Option<u64> {
    digits(text, 10).filter(|value| value.to_string() == text)
}

/// A token, read by the daemon's library.
fn token_of(text: &str) -> Option<Token> {
    let token: proto::Token = text.parse().ok()?;
    Token::of_bytes(token.as_bytes())
}

/// An argument of numbers.
fn numeric(word: &str, argument: &str) -> Option<Command<'static>> {
    if let Some((_, _, resource, mark)) = LIMITS.iter().find(|limit| limit.0 == word) {
        let percent = digits(argument.strip_suffix('%')?, 10)?;
        let percent = u8::try_from(percent)
            .ok()
            .filter(|percent| *percent <= 99)?;
        return Some(Command::Limit {
            resource: *resource,
            mark: *mark,
            percent,
        });
    }
    if word == "debug" {
        let lower = argument.replacen('X', "x", 1);
        let mask = match lower.strip_prefix("0x") {
            Some(hexadecimal) => digits(hexadecimal, 16)?,
            None => plain(argument)?,
        };
        return Some(Command::Debug(u32::try_from(mask).ok()?));
    }
    if word == "timeout" {
        let seconds = u32::try_from(plain(argument)?).ok()?;
        return (seconds <= 86_400).then_some(Command::Timeout(seconds));
    }
    if word == "batch" {
        let count = u32::try_from(plain(argument)?).ok()?;
        return (1..=256).contains(&count).then_some(Command::Batch(count));
    }
    if word == "fetch" {
        let bytes = u32::try_from(plain(argument)?).ok()?;
        let known = bytes == 0 || (12..=26).any(|bits| bytes == 1 << bits);
        return known.then_some(Command::Fetch(bytes));
    }
    let (msg_id, answer) = argument.split_once(',')?;
    let msg_id = u32::try_from(plain(msg_id)?).ok()?;
    let answer = match answer.strip_prefix('-') {
        Some(number) => match plain(number) {
            Some(number @ 1..=4095) => i32::try_from(number)
                .ok()
                .and_then(|raw| Errno::from_raw(-raw))
                .map(CopenAnswer::Error),
            _ => None,
        },
        None => {
            let (size, token) = match answer.split_once(',') {
                Some((size, token)) => (size, token_of(token)),
                None => (answer, Some(Token::UNTOLD)),
            };
            plain(size)
                .filter(|size| *size < 1 << 63)
                .zip(token)
                .map(|(size, token)| CopenAnswer::Version(Version { size, token }))
        }
    };
    Some(Command::Copen {
        msg_id,
        answer: answer.unwrap_or(CopenAnswer::Malformed),
    })
}

/// What the protocol says about a text.
fn read(text: &[u8]) -> Result<Command<'_>, Errno> {
    if text.is_empty() || text.len() > 4095 {
        return Err(Errno::EOPNOTSUPP);
    }
    let end = text.len() - usize::from(text.ends_with(b"\n"));
    let line = &text[..end];
    if end == 0 || line.contains(&0) || line.contains(&b'\n') {
        return Err(Errno::EINVAL);
    }
    let blanks = b" \t\x0b\x0c\r";
    let mut argument = line;
    let mut word = String::new();
    while let [byte, rest @ ..] = argument {
        if blanks.contains(byte) {
            break;
        }
        word.push(char::from(*byte));
        argument = rest;
    }
    while let [byte, rest @ ..] = argument {
        if !blanks.contains(byte) {
            break;
        }
        argument = rest;
    }
    let given = (!argument.is_empty()).then_some(argument);
    let entry = given.filter(|name| *name != b"." && *name != b".." && !name.contains(&b'/'));
    let command = match word.as_str() {
        "bind" if given.is_none() => Some(Command::Bind(Mode::Plain)),
        "bind" => (argument == b"ondemand").then_some(Command::Bind(Mode::OnDemand)),
        "fill" if argument == b"direct" => Some(Command::Fill(Fill::Direct)),
        "fill" => (argument == b"buffered").then_some(Command::Fill(Fill::Buffered)),
        "identity" => (argument == b"on").then_some(Command::Identity),
        "restore" => given.is_none().then_some(Command::Restore),
        "dir" => given.map(Command::Dir),
        "tag" => given.map(Command::Tag),
        "secctx" => given.map(Command::SecurityContext),
        "cull" => entry.map(Command::Cull),
        "inuse" => entry.map(Command::InUse),
        "brun" | "bcull" | "bstop" | "frun" | "fcull" | "fstop" | "debug" | "copen" | "timeout"
        | "fetch" | "batch" => {
            // What is not ASCII is no number, and must not be half of one either.
            let text: String = argument.iter().copied().map(char::from).collect();
            numeric(&word, &text)
        }
        _ => return Err(Errno::EOPNOTSUPP),
    };
    command.ok_or(Errno::EINVAL)
}

/// The same command for the daemon's library; `None` for what a daemon cannot want to say.
fn for_daemon(command: Command<'_>) -> Option<proto::Command> {
    let own = |text: &[u8]| OsString::from_vec(text.to_vec());
    Some(match command {
        Command::Dir(path) => proto::Command::Dir(own(path).into()),
        Command::Tag(name) => proto::Command::Tag(own(name)),
        Command::SecurityContext(context) => proto::Command::SecurityContext(own(context)),
        Command::Cull(name) => proto::Command::Cull(own(name)),
        Command::InUse(name) => proto::Command::InUse(own(name)),
        Command::Limit {
            resource,
            mark,
            percent,
        } => {
            let (_, limit, ..) = LIMITS
                .iter()
                .find(|limit| limit.2 == resource && limit.3 == mark)?;
            proto::Command::Limit {
                limit: *limit,
                percent,
            }
        }
        Command::Bind(Mode::Plain) => proto::Command::Bind,
        Command::Bind(Mode::OnDemand) => proto::Command::BindOnDemand,
        Command::Debug(mask) => proto::Command::Debug(mask),
        Command::Restore => proto::Command::Restore,
        Command::Timeout(seconds) => proto::Command::Timeout(seconds),
        Command::Fetch(bytes) => proto::Command::Fetch(bytes),
        Command::Batch(count) => proto::Command::Batch(count),
        Command::Fill(Fill::Direct) => proto::Command::Fill(proto::Fill::Direct),
        Command::Fill(Fill::Buffered) => proto::Command::Fill(proto::Fill::Buffered),
        Command::Identity => proto::Command::Identity,
        Command::Copen { msg_id, answer } => {
            let answer = match answer {
                CopenAnswer::Version(Version { size, token }) => {
                    match proto::Token::new(token.as_bytes()) {
                        Ok(token) => proto::OpenAnswer::Version { size, token },
                        Err(proto::NoToken) => proto::OpenAnswer::Size(size),
                    }
                }
                CopenAnswer::Error(error) => {
                    proto::OpenAnswer::Error(rustix::io::Errno::from_raw_os_error(-error.to_raw()))
                }
                CopenAnswer::Malformed => return None,
            };
            proto::Command::Copen { msg_id, answer }
        }
    })
}

/// The bytes are one command.
///
/// # Errors
///
/// Says what does not hold.
pub fn holds(data: &[u8]) -> Result<(), String> {
    let text = data.escape_ascii();
    let found = parse(data);
    let expected = read(data);
    ensure!(
        found == expected,
        "\"{text}\" is {found:?}, not {expected:?}"
    );
    let Some(again) = found.ok().and_then(for_daemon) else {
        return Ok(());
    };
    match again.encode() {
        Ok(line) => ensure!(
            parse(&line) == found,
            "\"{text}\" is written as \"{}\" and then {:?}",
            line.escape_ascii(),
            parse(&line)
        ),
        // The library is careful with what some kernels take for a blank.
        Err(proto::EncodeError::LeadingSpace(_)) => {}
        Err(error) => return Err(format!("\"{text}\" cannot be written: {error}")),
    }
    Ok(())
}
