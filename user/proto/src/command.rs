// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands that are written to the device, one a `write`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::EncodeError;
use crate::token::Token;

/// The longest command that the kernel takes, in bytes: one page less one.
pub const MAX_COMMAND_LEN: usize = 4095;

/// The longest time that a request can be given, in seconds: a day.
pub const MAX_TIMEOUT: u32 = 24 * 60 * 60;

/// The smallest window that READs can be rounded out to, in bytes.
pub const MIN_FETCH: u32 = 4096;

/// The largest one.
pub const MAX_FETCH: u32 = 64 << 20;

/// The most messages that one `read` can be told to give.
pub const MAX_BATCH: u32 = 256;

/// The largest errno that fits into a kernel pointer (`MAX_ERRNO`).
const MAX_ERRNO: i32 = 4095;

/// One command for `/dev/cachefiles`; [`Device::send`](crate::Device::send) writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `dir PATH`: the directory that holds the cache; once, before bind.
    Dir(PathBuf),
    /// `tag NAME`: the cache's name, `CacheFiles` by default; before bind.
    Tag(OsString),
    /// `secctx CTX`: the security context under which the kernel works on the cache; before bind.
    SecurityContext(OsString),
    /// `brun 7%` and the like: a limit of free space or free files; before bind.
    Limit {
        /// Which limit.
        limit: Limit,
        /// Per cent of the file system, 0 to 99; stop < cull < run must hold at bind.
        percent: u8,
    },
    /// `timeout SECONDS`: end a request with an error that was not answered for so long, at most
    /// [`MAX_TIMEOUT`]; 0, the default: never. Before bind. The kernel's own cachefiles does not
    /// know it: `EOPNOTSUPP`.
    Timeout(u32),
    /// `fetch BYTES`: READs ask for whole windows of so many bytes, a power of two from [`MIN_FETCH`]
    /// to [`MAX_FETCH`]; 0, the default: for what is missing alone. Before bind. The kernel's own
    /// cachefiles does not know it: `EOPNOTSUPP`.
    Fetch(u32),
    /// `batch COUNT`: one `read` of the device gives up to so many messages, 1, the default, to
    /// [`MAX_BATCH`]. Before bind. The kernel's own cachefiles does not know it: `EOPNOTSUPP`.
    Batch(u32),
    /// `fill direct`, the default, or `fill buffered`: how what is written to an anonymous file is stored.
    /// Before bind. The kernel's own cachefiles does not know it: `EOPNOTSUPP`.
    Fill(Fill),
    /// `identity on`: [`OpenAnswer::Version`] may be answered. Before bind; of a bound cache it asks whether it was
    /// sent: if not, `EBUSY`. The kernel's own cachefiles does not know it: `EOPNOTSUPP`.
    Identity,
    /// `bind`: start a cache without on-demand mode.
    Bind,
    /// `bind ondemand`: start a cache that asks the daemon for its data.
    BindOnDemand,
    /// `copen MSGID,SIZE`, `copen MSGID,SIZE,TOKEN` or `copen MSGID,-ERRNO`: answer an OPEN.
    Copen {
        /// [`Open::msg_id`](crate::Open::msg_id)
        msg_id: u32,
        /// The object's size, or why it cannot be opened.
        answer: OpenAnswer,
    },
    /// `restore`: send again what a daemon that died had read and not answered.
    Restore,
    /// `debug MASK`: the module's debug mask.
    Debug(u32),
    /// `cull NAME`: delete a cache file of the caller's working directory.
    Cull(OsString),
    /// `inuse NAME`: `EBUSY` if a cache file of the caller's working directory is in use.
    InUse(OsString),
}

/// How what is written to an anonymous file is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// On the disk, before the write returns.
    #[default]
    Direct,
    /// Small writes in memory, and soon after on the disk. Refused at bind for a file system that could
    /// give zeros for data after a loss of power.
    Buffered,
}

/// The answer to an OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenAnswer {
    /// The object's size in bytes, at most `i64::MAX`. A reopen must repeat the first answer.
    Size(u64),
    /// Its size, and which version of it is served: what is stored of another one is dropped. A reopen must
    /// repeat both. Only after [`Command::Identity`].
    Version {
        /// Bytes, as above.
        size: u64,
        /// Of this version, and no other.
        token: Token,
    },
    /// The object cannot be opened; `ENOENT` for one that the daemon does not know.
    Error(Errno),
}

/// A limit on the free blocks (`b`) or free files (`f`) of the cache's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `brun`: culling ends above this.
    BlocksRun,
    /// `bcull`: culling starts below this.
    BlocksCull,
    /// `bstop`: nothing new is cached below this.
    BlocksStop,
    /// `frun`: culling ends above this.
    FilesRun,
    /// `fcull`: culling starts below this.
    FilesCull,
    /// `fstop`: nothing new is cached below this.
    FilesStop,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Limit::BlocksRun => "brun",
            Limit::BlocksCull => "bcull",
            Limit::BlocksStop => "bstop",
            Limit::FilesRun => "frun",
            Limit::FilesCull => "fcull",
            Limit::FilesStop => "fstop",
        }
    }
}

impl Command {
    /// The word that the command starts with.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Command::Dir(_) => "dir",
            Command::Tag(_) => "tag",
            Command::SecurityContext(_) => "secctx",
            Command::Limit { limit, .. } => limit.name(),
            Command::Timeout(_) => "timeout",
            Command::Fetch(_) => "fetch",
            Command::Batch(_) => "batch",
            Command::Fill(_) => "fill",
            Command::Identity => "identity",
            Command::Bind | Command::BindOnDemand => "bind",
            Command::Copen { .. } => "copen",
            Command::Restore => "restore",
            Command::Debug(_) => "debug",
            Command::Cull(_) => "cull",
            Command::InUse(_) => "inuse",
        }
    }

    /// The bytes that one `write` hands to the kernel.
    ///
    /// # Errors
    ///
    /// An [`EncodeError`] for what the kernel would refuse, or would read as something else.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let name = self.name();
        let argument = match self {
            Command::Bind | Command::Restore => None,
            Command::BindOnDemand => Some(b"ondemand".to_vec()),
            Command::Dir(path) => Some(plain(name, path.as_os_str().as_bytes())?),
            Command::Tag(text)
            | Command::SecurityContext(text)
            | Command::Cull(text)
            | Command::InUse(text) => Some(plain(name, text.as_bytes())?),
            Command::Limit { percent, .. } if *percent > 99 => {
                return Err(EncodeError::Range(name, u64::from(*percent)))
            }
            Command::Limit { percent, .. } => Some(format!("{percent}%").into_bytes()),
            Command::Timeout(seconds) if *seconds > MAX_TIMEOUT => {
                return Err(EncodeError::Range(name, u64::from(*seconds)))
            }
            Command::Batch(count) if !(1..=MAX_BATCH).contains(count) => {
                return Err(EncodeError::Range(name, u64::from(*count)))
            }
            Command::Batch(count) => Some(count.to_string().into_bytes()),
            Command::Identity => Some(b"on".to_vec()),
            Command::Fill(Fill::Direct) => Some(b"direct".to_vec()),
            Command::Fill(Fill::Buffered) => Some(b"buffered".to_vec()),
            Command::Fetch(bytes) if !is_window(*bytes) => {
                return Err(EncodeError::Range(name, u64::from(*bytes)))
            }
            Command::Fetch(bytes) => Some(bytes.to_string().into_bytes()),
            Command::Timeout(seconds) => Some(seconds.to_string().into_bytes()),
            Command::Debug(mask) => Some(mask.to_string().into_bytes()),
            Command::Copen { msg_id, answer } => Some(copen_argument(name, *msg_id, *answer)?),
        };
        let mut line = name.as_bytes().to_vec();
        if let Some(argument) = argument {
            line.push(b' ');
            line.extend(argument);
        }
        if line.len() > MAX_COMMAND_LEN {
            return Err(EncodeError::TooLong(name, line.len()));
        }
        Ok(line)
    }
}

/// Whether READs can be rounded out to windows of so many bytes; 0: not at all.
#[must_use]
pub fn is_window(bytes: u32) -> bool {
    bytes == 0 || bytes.is_power_of_two() && (MIN_FETCH..=MAX_FETCH).contains(&bytes)
}

/// An argument that the kernel reads back as it is.
fn plain(name: &'static str, text: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let first = text.first().ok_or(EncodeError::Empty(name))?;
    // isspace() of the kernel: ASCII white space, vertical tab and no-break space.
    if first.is_ascii_whitespace() || matches!(first, 0x0b | 0xa0) {
        return Err(EncodeError::LeadingSpace(name));
    }
    if text.iter().any(|byte| matches!(byte, 0 | b'\n')) {
        return Err(EncodeError::Separator(name));
    }
    Ok(text.to_vec())
}

fn copen_argument(
    name: &'static str,
    msg_id: u32,
    answer: OpenAnswer,
) -> Result<Vec<u8>, EncodeError> {
    let text = match answer {
        OpenAnswer::Size(size) => format!("{msg_id},{}", loff(name, size)?),
        OpenAnswer::Version { size, token } => {
            format!("{msg_id},{},{token}", loff(name, size)?)
        }
        OpenAnswer::Error(errno) => {
            let raw = errno.raw_os_error();
            if !(1..=MAX_ERRNO).contains(&raw) {
                return Err(EncodeError::Range(name, u64::from(raw.unsigned_abs())));
            }
            format!("{msg_id},-{raw}")
        }
    };
    Ok(text.into_bytes())
}

/// A size that the kernel can hold.
fn loff(name: &'static str, size: u64) -> Result<i64, EncodeError> {
    i64::try_from(size).map_err(|_| EncodeError::Range(name, size))
}

/// As it is written; bytes that are no UTF-8 are shown as U+FFFD.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encode() {
            Ok(line) => f.write_str(&String::from_utf8_lossy(&line)),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn text_is_what_the_kernel_parses() {
        let cases: [(Command, &str); 17] = [
            (Command::Dir("/c/x y".into()), "dir /c/x y"),
            (Command::Tag("t".into()), "tag t"),
            (Command::Bind, "bind"),
            (Command::BindOnDemand, "bind ondemand"),
            (Command::Restore, "restore"),
            (Command::Debug(7), "debug 7"),
            (Command::Timeout(86_400), "timeout 86400"),
            (Command::Fetch(65_536), "fetch 65536"),
            (Command::Batch(16), "batch 16"),
            (Command::Fill(Fill::Direct), "fill direct"),
            (Command::Fill(Fill::Buffered), "fill buffered"),
            (Command::Identity, "identity on"),
            (
                Command::Copen {
                    msg_id: 3,
                    answer: OpenAnswer::Version {
                        size: 4096,
                        token: Token::new(&[0x0a, 0xf0]).unwrap(),
                    },
                },
                "copen 3,4096,0af0",
            ),
            (Command::Cull("D1".into()), "cull D1"),
            (
                Command::Limit {
                    limit: Limit::FilesStop,
                    percent: 1,
                },
                "fstop 1%",
            ),
            (
                Command::Copen {
                    msg_id: u32::MAX,
                    answer: OpenAnswer::Size(u64::MAX >> 1),
                },
                "copen 4294967295,9223372036854775807",
            ),
            (
                Command::Copen {
                    msg_id: 0,
                    answer: OpenAnswer::Error(Errno::NOENT),
                },
                "copen 0,-2",
            ),
        ];
        for (command, text) in cases {
            assert_eq!(command.encode().unwrap(), text.as_bytes());
            assert_eq!(command.to_string(), text);
        }
    }

    #[test]
    fn what_the_kernel_would_misread_is_refused() {
        use EncodeError as E;
        let long = "x".repeat(MAX_COMMAND_LEN - 3);
        let cases = [
            (Command::Dir("".into()), E::Empty("dir")),
            (Command::Tag(" a".into()), E::LeadingSpace("tag")),
            (
                Command::Tag(OsString::from_vec(vec![0xa0, b'a'])),
                E::LeadingSpace("tag"),
            ),
            (Command::Tag("a\nb".into()), E::Separator("tag")),
            (Command::Cull("a\0".into()), E::Separator("cull")),
            (
                Command::Limit {
                    limit: Limit::BlocksRun,
                    percent: 100,
                },
                E::Range("brun", 100),
            ),
            (Command::Timeout(86_401), E::Range("timeout", 86_401)),
            (Command::Batch(0), E::Range("batch", 0)),
            (Command::Batch(257), E::Range("batch", 257)),
            (Command::Fetch(65_535), E::Range("fetch", 65_535)),
            (Command::Fetch(2048), E::Range("fetch", 2048)),
            (Command::Fetch(128 << 20), E::Range("fetch", 128 << 20)),
            (
                Command::Copen {
                    msg_id: 0,
                    answer: OpenAnswer::Size(1 << 63),
                },
                E::Range("copen", 1 << 63),
            ),
            (
                Command::Dir(long.into()),
                E::TooLong("dir", MAX_COMMAND_LEN + 1),
            ),
        ];
        for (command, error) in cases {
            assert_eq!(command.encode(), Err(error));
        }
    }

    #[test]
    fn arguments_need_not_be_utf8() {
        let name = OsString::from_vec(vec![b'D', 0xff]);
        assert_eq!(Command::Cull(name).encode().unwrap(), b"cull D\xff");
    }
}
