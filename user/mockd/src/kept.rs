// SPDX-License-Identifier: MIT OR Apache-2.0

//! A child that holds descriptors of the daemon open.

use std::os::fd::RawFd;

use rustix::io::Errno;

/// After so many seconds the child ends by itself.
const SECONDS: libc::c_uint = 60;

/// Forks a child that closes `closed`, holds all else open, and does nothing until it is killed, or
/// a minute has passed. Returns its process id.
///
/// # Errors
///
/// What `fork` says.
pub fn fork(closed: &[RawFd]) -> Result<i32, Errno> {
    // SAFETY: The child of a process with threads may only do what is async-signal-safe: `wait`
    // does nothing else, and does not return.
    match unsafe { libc::fork() } {
        0 => wait(closed),
        pid if pid > 0 => Ok(pid),
        _ => {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
    }
}

fn wait(closed: &[RawFd]) -> ! {
    // SAFETY: It changes nothing in memory; without a handler the signal ends the process.
    unsafe { libc::alarm(SECONDS) };
    for fd in closed {
        // SAFETY: This process uses none of its descriptors any more, and runs no destructor.
        unsafe { libc::close(*fd) };
    }
    loop {
        // SAFETY: It has no arguments and waits for a signal.
        unsafe { libc::pause() };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::process::Pid;
    use rustix::process::Signal;
    use rustix::process::WaitOptions;

    use super::*;

    #[test]
    fn it_holds_what_it_does_not_close() {
        let (first, first_kept) = rustix::pipe::pipe().unwrap();
        let (second, second_closed) = rustix::pipe::pipe().unwrap();
        let child = Pid::from_raw(fork(&[second_closed.as_raw_fd()]).unwrap()).unwrap();
        drop((first_kept, second_closed));
        // This ends because the child has closed its copy, too.
        assert_eq!(rustix::io::read(&second, &mut [0; 1]), Ok(0));
        rustix::fs::fcntl_setfl(&first, rustix::fs::OFlags::NONBLOCK).unwrap();
        assert_eq!(rustix::io::read(&first, &mut [0; 1]), Err(Errno::AGAIN));
        rustix::process::kill_process(child, Signal::KILL).unwrap();
        rustix::process::waitpid(Some(child), WaitOptions::empty()).unwrap();
        assert_eq!(rustix::io::read(&first, &mut [0; 1]), Ok(0));
    }
}
