// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The text that a daemon writes to `/dev/cachefiles`.
//!
//! One `write` is one command: a word, and after the first white space its argument. The text is
//! taken apart here, once, into a [`Command`] that cannot be wrong in form any more. Whether it may be
//! obeyed in the state that the cache is in is not looked at here.
//!
//! Numbers are plain decimal: no sign but the minus of an error number, no blanks, no `0x`. The C
//! module guesses the base, so that `copen 010,...` there answers request 8; here a leading zero is
//! refused wherever the base was guessed, `debug` alone takes hexadecimal too.

use crate::errno::Errno;
use crate::store::identity::Token;
use crate::store::identity::Version;
use crate::store::limits::Mark;
use crate::store::limits::Resource;
pub use crate::store::options::Fill;

/// The longest command in bytes, its newline included. The caller refuses a longer write with
/// `EOPNOTSUPP` before it copies anything.
pub const MAX_COMMAND: usize = 4095;

/// The longest time that a request may be given, in seconds: a day.
pub const MAX_TIMEOUT: u32 = 24 * 60 * 60;

/// The smallest window that READs can be rounded out to, in bytes: a page.
pub const MIN_FETCH: u32 = 4096;

/// The largest one.
pub const MAX_FETCH: u32 = 64 << 20;

/// The most messages that one `read` can be told to deliver.
pub const MAX_BATCH: u32 = 256;

/// A well-formed command. Text arguments are neither empty nor hold a NUL or a newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `dir PATH`: where the cache lives.
    Dir(&'a [u8]),
    /// `tag NAME`: what the cache is called.
    Tag(&'a [u8]),
    /// `secctx CTX`: the security context to work on the store with.
    SecurityContext(&'a [u8]),
    /// `brun N%` and the five like it.
    Limit {
        /// The letter `b` or `f`.
        resource: Resource,
        /// The word `run`, `cull` or `stop`.
        mark: Mark,
        /// In `0..=99`; the order of the three marks is [`Limits`](crate::store::limits::Limits)' affair.
        percent: u8,
    },
    /// `bind` or `bind ondemand`: put the cache into service.
    Bind(Mode),
    /// `debug MASK`: what to log.
    Debug(u32),
    /// `cull NAME`: remove an object of the caller's working directory.
    Cull(&'a [u8]),
    /// `inuse NAME`: is that object in use?
    InUse(&'a [u8]),
    /// `copen MSGID,SIZE`, `copen MSGID,SIZE,TOKEN` or `copen MSGID,-ERRNO`: the answer to an OPEN.
    Copen {
        /// The request that is answered, if there is such a one.
        msg_id: u32,
        /// What is after the first comma.
        answer: CopenAnswer,
    },
    /// `restore`: send again what a daemon that died has left unanswered.
    Restore,
    /// `timeout SECONDS`: how long a request waits for its answer; 0 for ever.
    Timeout(u32),
    /// `fetch BYTES`: READs ask for whole windows of so many bytes, a power of two; 0: for what is
    /// missing alone.
    Fetch(u32),
    /// `batch COUNT`: one `read` delivers up to so many messages, in `1..=`[`MAX_BATCH`].
    Batch(u32),
    /// `fill direct` or `fill buffered`: how the daemon's data is stored.
    Fill(Fill),
    /// `identity on`: a `copen` may tell a token.
    Identity,
}

/// How a cache serves its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The network file system fills the cache.
    Plain,
    /// The daemon fills the cache.
    OnDemand,
}

/// The answer to an OPEN.
///
/// A request that was named and then answered badly must still end, so that nobody waits for an answer
/// that was given: hence a malformed answer is a value here and no error of the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopenAnswer {
    /// The object's size and version.
    Version(Version),
    /// The daemon failed, with an error number in `-4095..=-1`.
    Error(Errno),
    /// Neither: the request ends, the writer gets `EINVAL`.
    Malformed,
}

/// Parses one command.
///
/// One newline at the end is dropped. White space is space, tab, vertical tab, form feed and carriage
/// return; all of it between the word and the argument is skipped, what ends the argument belongs to
/// it.
///
/// # Errors
///
/// - `EOPNOTSUPP`: the text is empty, begins with a blank, is longer than [`MAX_COMMAND`], or its first
///   word is no command.
/// - `EINVAL`: the text holds a NUL, or a newline before its last byte, or is only a newline; the
///   argument is missing, superfluous, out of range or not of the command's form. A `copen` whose
///   message id is malformed or not followed by a comma is such a one, since it names no request.
pub fn parse(text: &[u8]) -> Result<Command<'_>, Errno> {
    if text.len() > MAX_COMMAND {
        return Err(Errno::EOPNOTSUPP);
    }
    let line = match text.strip_suffix(b"\n") {
        Some([]) => return Err(Errno::EINVAL),
        Some(line) => line,
        None => text,
    };
    if line.iter().any(|byte| matches!(byte, 0 | b'\n')) {
        return Err(Errno::EINVAL);
    }

    let (word, argument) = split(line);
    match word {
        b"batch" => batch(argument),
        b"bind" => match argument {
            b"" => Ok(Command::Bind(Mode::Plain)),
            b"ondemand" => Ok(Command::Bind(Mode::OnDemand)),
            _ => Err(Errno::EINVAL),
        },
        b"brun" => limit(Resource::Blocks, Mark::Run, argument),
        b"bcull" => limit(Resource::Blocks, Mark::Cull, argument),
        b"bstop" => limit(Resource::Blocks, Mark::Stop, argument),
        b"copen" => copen(argument),
        b"cull" => Ok(Command::Cull(entry(argument)?)),
        b"debug" => debug_mask(argument).map(Command::Debug),
        b"dir" => Ok(Command::Dir(non_empty(argument)?)),
        b"fetch" => fetch(argument),
        b"fill" => match argument {
            b"direct" => Ok(Command::Fill(Fill::Direct)),
            b"buffered" => Ok(Command::Fill(Fill::Buffered)),
            _ => Err(Errno::EINVAL),
        },
        b"frun" => limit(Resource::Files, Mark::Run, argument),
        b"fcull" => limit(Resource::Files, Mark::Cull, argument),
        b"fstop" => limit(Resource::Files, Mark::Stop, argument),
        b"identity" => match argument {
            b"on" => Ok(Command::Identity),
            _ => Err(Errno::EINVAL),
        },
        b"inuse" => Ok(Command::InUse(entry(argument)?)),
        b"restore" => match argument {
            b"" => Ok(Command::Restore),
            _ => Err(Errno::EINVAL),
        },
        b"secctx" => Ok(Command::SecurityContext(non_empty(argument)?)),
        b"timeout" => timeout(argument),
        b"tag" => Ok(Command::Tag(non_empty(argument)?)),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// White space as C's locale has it, less the newline, which was dealt with before.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\x0b' | b'\x0c' | b'\r')
}

/// Splits a line into its first word and what follows the white space after that; either may be empty.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line
        .iter()
        .position(|&byte| is_blank(byte))
        .unwrap_or(line.len());
    let word = line.get(..end).unwrap_or(line);
    let rest = line.get(end..).unwrap_or(b"");
    let begin = rest.iter().position(|&byte| !is_blank(byte));
    let argument = begin.and_then(|begin| rest.get(begin..)).unwrap_or(b"");
    (word, argument)
}

fn non_empty(argument: &[u8]) -> Result<&[u8], Errno> {
    if argument.is_empty() {
        Err(Errno::EINVAL)
    } else {
        Ok(argument)
    }
}

/// A name that can be an entry of a directory.
fn entry(argument: &[u8]) -> Result<&[u8], Errno> {
    match argument {
        b"" | b"." | b".." => Err(Errno::EINVAL),
        name if name.contains(&b'/') => Err(Errno::EINVAL),
        name => Ok(name),
    }
}

/// `N%` with N in `0..=99`. This one was decimal all along, `07%` is 7 %.
fn limit(resource: Resource, mark: Mark, argument: &[u8]) -> Result<Command<'_>, Errno> {
    let percent = argument
        .strip_suffix(b"%")
        .and_then(|digits| number(digits, 10))
        .and_then(|value| u8::try_from(value).ok())
        .filter(|&percent| percent < 100)
        .ok_or(Errno::EINVAL)?;
    Ok(Command::Limit {
        resource,
        mark,
        percent,
    })
}

fn debug_mask(argument: &[u8]) -> Result<u32, Errno> {
    let hexadecimal = argument
        .strip_prefix(b"0x")
        .or_else(|| argument.strip_prefix(b"0X"));
    let value = match hexadecimal {
        Some(digits) => number(digits, 16),
        None => decimal(argument),
    };
    value
        .and_then(|value| u32::try_from(value).ok())
        .ok_or(Errno::EINVAL)
}

fn copen(argument: &[u8]) -> Result<Command<'_>, Errno> {
    let mut parts = argument.splitn(2, |&byte| byte == b',');
    let msg_id = parts.next().and_then(decimal_u32).ok_or(Errno::EINVAL)?;
    let answer = parts.next().ok_or(Errno::EINVAL)?;
    Ok(Command::Copen {
        msg_id,
        answer: copen_answer(answer).unwrap_or(CopenAnswer::Malformed),
    })
}

/// Seconds, decimal, at most [`MAX_TIMEOUT`].
fn timeout(argument: &[u8]) -> Result<Command<'_>, Errno> {
    decimal_u32(argument)
        .filter(|&seconds| seconds <= MAX_TIMEOUT)
        .map(Command::Timeout)
        .ok_or(Errno::EINVAL)
}

/// 0, or a power of two in [`MIN_FETCH`]`..=`[`MAX_FETCH`].
fn fetch(argument: &[u8]) -> Result<Command<'_>, Errno> {
    decimal_u32(argument)
        .filter(|bytes| {
            *bytes == 0 || bytes.is_power_of_two() && (MIN_FETCH..=MAX_FETCH).contains(bytes)
        })
        .map(Command::Fetch)
        .ok_or(Errno::EINVAL)
}

/// A number in `1..=`[`MAX_BATCH`].
fn batch(argument: &[u8]) -> Result<Command<'_>, Errno> {
    decimal_u32(argument)
        .filter(|count| (1..=MAX_BATCH).contains(count))
        .map(Command::Batch)
        .ok_or(Errno::EINVAL)
}

/// A size, a size and a token, or a negative error number; `None` for anything else.
fn copen_answer(text: &[u8]) -> Option<CopenAnswer> {
    match text.strip_prefix(b"-") {
        Some(digits) => {
            let error = i32::try_from(decimal(digits)?).ok()?;
            Errno::from_raw(error.checked_neg()?).map(CopenAnswer::Error)
        }
        None => {
            let mut parts = text.splitn(2, |&byte| byte == b',');
            // Sizes become a `loff_t`, which is signed.
            let size = decimal(parts.next()?).filter(|&size| i64::try_from(size).is_ok())?;
            let token = match parts.next() {
                Some(text) => Token::of_text(text)?,
                None => Token::UNTOLD,
            };
            Some(CopenAnswer::Version(Version { size, token }))
        }
    }
}

/// A decimal number without a leading zero; `None` for anything else and for what does not fit.
fn decimal(text: &[u8]) -> Option<u64> {
    match text {
        [b'0', _, ..] => None,
        digits => number(digits, 10),
    }
}

/// The same in 32 bits.
fn decimal_u32(text: &[u8]) -> Option<u32> {
    decimal(text).and_then(|value| u32::try_from(value).ok())
}

/// A number of one digit or more in base 10 or 16; `None` for anything else and for what does not fit.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        let digit = char::from(digit).to_digit(radix)?;
        value
            .checked_mul(u64::from(radix))?
            .checked_add(u64::from(digit))
    })
}
