// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keeper's signals, as descriptors that can be waited for together with everything else.
//!
//! Only the thread that has installed them takes them; all that it starts before [`Signals::unblock`] have
//! them blocked. So once it blocks them as well they wait, for the next program of the process too.

use std::io;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use anyhow::ensure;
use anyhow::Context;
use rustix::io::Errno;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::consts::SIGUSR1;

/// One kind of signal; readable when one has come.
#[derive(Debug)]
pub(crate) struct SignalFd {
    stream: UnixStream,
}

/// The signals that the keeper takes.
#[derive(Debug)]
pub(crate) struct Signals {
    /// SIGTERM and SIGINT.
    pub(crate) stop: SignalFd,
    /// SIGUSR1.
    pub(crate) report: SignalFd,
}

/// All of them.
const TAKEN: [i32; 3] = [SIGTERM, SIGINT, SIGUSR1];

impl Signals {
    /// Takes over the signals, for good. They wait until [`Signals::unblock`].
    pub(crate) fn install() -> anyhow::Result<Self> {
        change_mask(libc::SIG_BLOCK)?;
        Ok(Signals {
            stop: SignalFd::new(&[SIGTERM, SIGINT])?,
            report: SignalFd::new(&[SIGUSR1])?,
        })
    }

    /// Lets this thread take them; to be called when all others have been started.
    pub(crate) fn unblock(&self) -> anyhow::Result<()> {
        change_mask(libc::SIG_UNBLOCK)
    }

    /// Has them wait. What has come before can be taken.
    pub(crate) fn block(&self) -> anyhow::Result<()> {
        change_mask(libc::SIG_BLOCK)
    }
}

/// Changes how this thread takes the signals.
fn change_mask(how: libc::c_int) -> anyhow::Result<()> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is memory for a set, which this makes an empty one.
    let mut errno = unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in TAKEN {
        // SAFETY: `set` was initialised above.
        errno |= unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    ensure!(errno == 0, "cannot make a set of signals");
    // SAFETY: `set` was initialised above, and the old set, which is not asked for, may be null.
    let errno = unsafe { libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut()) };
    match errno {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)).context("cannot block signals"),
    }
}

/// Makes a broken pipe an error of the call again, as it is in every Rust program: an `exec` that failed
/// has made it a signal, which would end the keeper.
pub(crate) fn ignore_broken_pipes() -> io::Result<()> {
    // SAFETY: to ignore a signal installs no handler.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl SignalFd {
    fn new(signals: &[i32]) -> anyhow::Result<Self> {
        let (stream, writer) = UnixStream::pair().context("cannot make a socket pair")?;
        stream
            .set_nonblocking(true)
            .context("cannot set up a signal's socket")?;
        for signal in signals {
            let writer = writer.try_clone().context("cannot copy a descriptor")?;
            signal_hook::low_level::pipe::register(*signal, writer)
                .with_context(|| format!("cannot handle signal {signal}"))?;
        }
        Ok(SignalFd { stream })
    }

    /// How many signals have come since the last call; at most 64 are told apart.
    pub(crate) fn take(&self) -> usize {
        let mut bytes = [0; 64];
        // Nothing there is WouldBlock; the writing end is never closed.
        (&self.stream).read(&mut bytes).unwrap_or(0)
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_signals_wait() {
        // A thread of its own, for the mask is of the thread.
        std::thread::spawn(|| {
            let stop = SignalFd::new(&[SIGINT]).unwrap();
            change_mask(libc::SIG_BLOCK).unwrap();
            // To this thread, as raise(3) does.
            signal_hook::low_level::raise(SIGINT).unwrap();
            assert_eq!(stop.take(), 0);
            change_mask(libc::SIG_UNBLOCK).unwrap();
            assert_eq!(stop.take(), 1);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn signals_are_counted() {
        let signal = SignalFd::new(&[signal_hook::consts::SIGUSR2]).unwrap();
        assert_eq!(signal.take(), 0);
        for _ in 0..2 {
            signal_hook::low_level::raise(signal_hook::consts::SIGUSR2).unwrap();
        }
        assert_eq!(signal.take(), 2);
        assert_eq!(signal.take(), 0);
    }
}
