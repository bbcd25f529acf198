// SPDX-License-Identifier: MIT OR Apache-2.0

//! System calls with arguments that are wrong on purpose, which no safe wrapper lets through.

use std::ptr;

use rustix::fd::AsFd;
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::ioctl;

pub use mockd::namespace::private_mounts;

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

/// `close` of a number that should not be open, whoever may think that he owns it.
///
/// # Errors
///
/// What `close` says.
pub fn close_number(fd: i32) -> Result<(), Errno> {
    // SAFETY: The caller's test fails if this closes anything, and then owns nothing of that number.
    match unsafe { libc::close(fd) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
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

/// An `ioctl` on a file system that takes a number which it ignores.
fn on_file_system<const OPCODE: ioctl::Opcode>(dir: impl AsFd) -> Result<(), Errno> {
    let mut ignored = 0;
    // SAFETY: `FIFREEZE` and `FITHAW` are made as if they took an int.
    let request = unsafe { ioctl::Updater::<OPCODE, libc::c_int>::new(&mut ignored) };
    // SAFETY: Neither touches memory of this process.
    unsafe { ioctl::ioctl(dir, request) }
}

/// `FIFREEZE`: all that is on the disk stays as it is until [`thaw`].
///
/// # Errors
///
/// What `ioctl` says.
pub fn freeze(dir: impl AsFd) -> Result<(), Errno> {
    on_file_system::<{ ioctl::opcode::read_write::<libc::c_int>(b'X', 119) }>(dir)
}

/// `FITHAW`
///
/// # Errors
///
/// `EINVAL` if it is not frozen.
pub fn thaw(dir: impl AsFd) -> Result<(), Errno> {
    on_file_system::<{ ioctl::opcode::read_write::<libc::c_int>(b'X', 120) }>(dir)
}

/// `CACHEFILES_IOC_READ_COMPLETE`, as a 32-bit process calls it.
///
/// # Errors
///
/// `ENOSYS` if this machine has no such calls; what `ioctl` says.
pub fn read_complete_32(fd: impl AsFd, msg_id: u32) -> Result<(), Errno> {
    const READ_COMPLETE: u32 = 0x4004_9801;
    // The number of `ioctl` for 32-bit processes.
    let result = compat_syscall(54, fd.as_fd().as_raw_fd(), READ_COMPLETE, msg_id);
    match result {
        0 => Ok(()),
        error => Err(Errno::from_raw_os_error(-error)),
    }
}

#[cfg(target_arch = "x86_64")]
fn compat_syscall(number: i32, fd: i32, request: u32, argument: u32) -> i32 {
    let mut result = i64::from(number);
    // SAFETY: The call takes numbers only, and the kernel leaves the stack alone. The interrupt is
    // the way into the kernel for 32-bit processes; it may change r8 to r11. The compiler keeps
    // rbx for itself, so it is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {fd}",
            "int 0x80",
            "xchg rbx, {fd}",
            fd = inout(reg) i64::from(fd) => _,
            inout("rax") result,
            in("rcx") u64::from(request),
            in("rdx") u64::from(argument),
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    i32::try_from(result).unwrap_or(-libc::EIO)
}

#[cfg(not(target_arch = "x86_64"))]
fn compat_syscall(_: i32, _: i32, _: u32, _: u32) -> i32 {
    -libc::ENOSYS
}

/// Shows the directory `from` at `at` through a mount on which user ids are mapped as in the user
/// namespace `namespace`.
///
/// # Errors
///
/// What `open_tree`, `mount_setattr` or `move_mount` says; `EINVAL` for a file system that cannot.
pub fn mount_idmapped(
    from: &std::path::Path,
    at: &std::path::Path,
    namespace: impl AsFd,
) -> Result<(), Errno> {
    use rustix::fs::CWD;
    use rustix::mount::MoveMountFlags;
    use rustix::mount::OpenTreeFlags;

    let tree = rustix::mount::open_tree(
        CWD,
        from,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    // SAFETY: A structure of integers, for which 0 is a value.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_IDMAP;
    attributes.userns_fd = u64::try_from(namespace.as_fd().as_raw_fd()).map_err(|_| Errno::BADF)?;
    // SAFETY: The path is a string, and the structure valid for its size.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attributes,
            size_of_val(&attributes),
        )
    };
    if set != 0 {
        return Err(last_errno());
    }
    rustix::mount::move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
