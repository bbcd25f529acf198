// SPDX-License-Identifier: MIT OR Apache-2.0

//! System calls with arguments that are wrong on purpose, which no safe wrapper lets through.

use std::ptr;

use rustix::fd::AsFd;
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::ioctl;

/// A page that may be neither read nor written.
#[derive(Debug)]
pub struct ForbiddenPage(*mut libc::c_void);

/// The size of [`ForbiddenPage`] in bytes.
const PAGE: usize = 4096;

impl ForbiddenPage {
    /// Maps one.
    ///
    /// # Errors
    ///
    /// What `mmap` says.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: A new mapping at an address of the kernel's choice touches no other memory.
        let page = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                PAGE,
                rustix::mm::ProtFlags::empty(),
                rustix::mm::MapFlags::PRIVATE,
            )
        }?;
        Ok(ForbiddenPage(page))
    }
}

impl Drop for ForbiddenPage {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours, of this size, and nobody holds a reference into it.
        let _ = unsafe { rustix::mm::munmap(self.0, PAGE) };
    }
}

/// `read` into memory that cannot be written.
///
/// # Errors
///
/// What `read` says.
pub fn read_into(fd: impl AsFd, page: &ForbiddenPage) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: The page is mapped without access: the kernel cannot write to it.
    let len = unsafe { libc::read(fd, page.0, 1024) };
    usize::try_from(len).map_err(|_| last_errno())
}

/// `write` from memory that cannot be read.
///
/// # Errors
///
/// What `write` says.
pub fn write_from(fd: impl AsFd, page: &ForbiddenPage, len: usize) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: The page is mapped without access: the kernel cannot read it.
    let len = unsafe { libc::write(fd, page.0, len.min(PAGE)) };
    usize::try_from(len).map_err(|_| last_errno())
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// An `ioctl` that no file of this module knows: `_IO(0x98, 0x7f)`.
///
/// # Errors
///
/// What `ioctl` says.
pub fn unknown_ioctl(fd: impl AsFd) -> Result<(), Errno> {
    const UNKNOWN: ioctl::Opcode = ioctl::opcode::none(0x98, 0x7f);
    // SAFETY: The opcode says that there is no argument.
    let request = unsafe { ioctl::NoArg::<UNKNOWN>::new() };
    // SAFETY: No kernel gives this opcode a meaning that touches memory.
    unsafe { ioctl::ioctl(fd, request) }
}

/// Gives this process a mount namespace of its own, from which nothing propagates back.
///
/// # Errors
///
/// What `unshare` or `mount` says.
pub fn private_mounts() -> Result<(), Errno> {
    use rustix::mount::MountPropagationFlags;
    use rustix::thread::UnshareFlags;

    // SAFETY: Only the mounts are unshared, no descriptor changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
}
