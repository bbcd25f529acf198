// SPDX-License-Identifier: MIT OR Apache-2.0

//! Asking a keeper on its control socket.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use rustix::io::Errno;
use rustix::net::sockopt::Timeout;
use rustix::net::AddressFamily;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;

use super::Answer;
use super::Request;
use crate::report::Report;
use crate::rundir;

/// An answer has no more bytes.
const LONGEST_ANSWER: u64 = 1 << 20;

/// The numbers of the keeper that uses the run directory; `None` if nobody answers there: no keeper runs, or
/// one of a version without a control socket, or it has just ended.
///
/// # Errors
///
/// It refuses, or takes longer than `within`.
pub fn stats(run_dir: &Path, within: Duration) -> anyhow::Result<Option<Report>> {
    match ask(run_dir, &Request::Stats, within)? {
        None => Ok(None),
        Some(Answer::Stats { report }) => Ok(Some(*report)),
        Some(Answer::Error { error }) => bail!("the keeper says: {error}"),
        Some(other) => bail!("the keeper gives another answer: {other:?}"),
    }
}

/// Asks the keeper that uses the run directory; `None` if nobody answers there.
///
/// # Errors
///
/// The socket may not be used; the keeper takes longer than `within`, or says what is no answer.
pub fn ask(run_dir: &Path, request: &Request, within: Duration) -> anyhow::Result<Option<Answer>> {
    let path = run_dir.join(rundir::CONTROL);
    let asking = || format!("cannot ask the keeper at {}", path.display());
    let mut line = serde_json::to_vec(request).with_context(asking)?;
    line.push(b'\n');
    let text = match exchange(&path, &line, within) {
        Ok(text) => text,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound
                    | ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
                    | ErrorKind::BrokenPipe
            ) =>
        {
            return Ok(None)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            bail!("the keeper does not answer within {within:?}")
        }
        Err(error) => return Err(error).with_context(asking),
    };
    if text.is_empty() {
        return Ok(None);
    }
    ensure!(text.ends_with(b"\n"), "the keeper's answer is cut off");
    let answer = serde_json::from_slice(&text);
    answer.map(Some).with_context(|| {
        let text = String::from_utf8_lossy(&text);
        format!(
            "the keeper's answer is of another version: {}",
            text.trim_end()
        )
    })
}

fn exchange(path: &Path, request: &[u8], within: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + within;
    let mut stream = connect(path, within)?;
    stream.write_all(request)?;
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(text),
            Ok(len) => text.extend_from_slice(&part[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if u64::try_from(text.len()).is_ok_and(|len| len > LONGEST_ANSWER) {
            return Err(ErrorKind::InvalidData.into());
        }
    }
}

/// Connects. The time to write is set first: it also bounds how long a keeper that accepts nobody makes
/// `connect` wait.
fn connect(path: &Path, within: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, Some(within))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(UnixStream::from(socket)),
        // What a full queue is called when the time is over.
        Err(Errno::AGAIN) => Err(ErrorKind::TimedOut.into()),
        Err(errno) => Err(errno.into()),
    }
}
