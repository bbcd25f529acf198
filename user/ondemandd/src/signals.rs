// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keeper's signals, as descriptors that can be waited for together with everything else.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use anyhow::Context;
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

impl Signals {
    /// Takes over the signals, from now on and for good.
    pub(crate) fn install() -> anyhow::Result<Self> {
        Ok(Signals {
            stop: SignalFd::new(&[SIGTERM, SIGINT])?,
            report: SignalFd::new(&[SIGUSR1])?,
        })
    }
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
