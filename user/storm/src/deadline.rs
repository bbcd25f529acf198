// SPDX-License-Identifier: MIT OR Apache-2.0

//! Work that may stand in the kernel for ever, and is not waited for that long.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use ondemand_deadline::Deadline;

use crate::watch;

/// Runs `work` in a thread of its own, for at most `seconds` of the reference machine.
///
/// # Errors
/// What `work` returned; or it did not end in time, and the message has its kernel stack.
pub(crate) fn within<T: Send + 'static>(
    what: &str,
    seconds: u64,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, wait) = mpsc::channel();
    let worker = thread::spawn(move || {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let _ = done.send(Err(tid));
        let _ = done.send(Ok(work()));
    });
    let mut deadline = Deadline::after(Duration::from_secs(seconds));
    let mut tid = 0;
    loop {
        let rest = deadline.remaining();
        match wait.recv_timeout(rest) {
            Ok(Err(id)) => tid = id,
            Ok(Ok(result)) => {
                let _ = worker.join();
                return result.with_context(|| what.to_owned());
            }
            Err(RecvTimeoutError::Timeout) if !rest.is_zero() => {}
            Err(RecvTimeoutError::Timeout) => {
                let stack = watch::stack(tid);
                let workers = watch::kernel_workers();
                bail!("{what}: not done within {deadline}\n{stack}{workers}");
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{what}: its thread panicked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_is_not_waited_for() {
        assert_eq!(within("work", 60, || Ok(7)).unwrap(), 7);
        let failed = within("work", 60, || -> Result<()> { bail!("no") }).unwrap_err();
        assert_eq!(format!("{failed:#}"), "work: no");
        let (_kept, never) = mpsc::channel::<()>();
        let late = within("work", 0, move || Ok(never.recv()?)).unwrap_err();
        assert!(late.to_string().contains("not done within 0 s"), "{late:#}");
    }
}
