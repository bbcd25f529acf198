// SPDX-License-Identifier: MIT OR Apache-2.0

//! A mount namespace of the process's own.

use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

/// Gives this process a mount namespace of its own, from which nothing propagates back. To be
/// called before there are threads: those that are there keep the old one.
///
/// # Errors
///
/// What `unshare` or `mount` says.
pub fn private_mounts() -> Result<(), Errno> {
    // SAFETY: Only the mounts are unshared, no descriptor changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
}
