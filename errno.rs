// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Error numbers, for the files that know no kernel.
//!
//! The pure files are compiled twice: into the module, where `kernel::error::Error` exists, and into
//! the host crate `ondemand-core`, where it does not. They speak [`Errno`] instead, and the module
//! converts at the border.
//!
//! C headers: `include/uapi/asm-generic/errno-base.h`, `include/uapi/asm-generic/errno.h`.

use core::fmt;

/// The largest error number, as in `include/linux/err.h`.
const MAX_ERRNO: i32 = 4095;

/// An error number.
///
/// # Invariants
///
/// The number, with the sign that system calls give it, is in `-4095..=-1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        #[allow(dead_code, reason = "the list is shared by two crates, each uses its own part")]
        impl Errno {
            $(
                #[doc = $doc]
                // INVARIANT: Every number of the list below is in `1..=4095`.
                pub const $name: Self = Self(-$number);
            )*

            /// The symbol of a number of this list; `None` for any other.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

// The numbers are those of `asm-generic`, which x86, arm64, riscv and loongarch share. mips, parisc,
// sparc and alpha number those above 34 differently; the build refuses them below.
errnos! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such file or directory.";
    EINTR = 4, "Interrupted by a signal.";
    EIO = 5, "Input or output error.";
    EAGAIN = 11, "Nothing to be had now, try again.";
    ENOMEM = 12, "Out of memory.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address of a user buffer.";
    EBUSY = 16, "The resource is in use.";
    EEXIST = 17, "It exists already.";
    EXDEV = 18, "Not on the same file system.";
    ENOTDIR = 20, "Not a directory.";
    EISDIR = 21, "A directory.";
    EINVAL = 22, "Invalid argument.";
    ENFILE = 23, "Too many open files in the system.";
    EMFILE = 24, "Too many open files in the process.";
    EFBIG = 27, "The file would become too large.";
    ENOSPC = 28, "No space left on the device.";
    EROFS = 30, "Read-only file system.";
    ERANGE = 34, "Out of range.";
    ENAMETOOLONG = 36, "The file name is too long.";
    ENODATA = 61, "No data, or no such attribute.";
    EOVERFLOW = 75, "The value does not fit its type.";
    EBADFD = 77, "The file descriptor is in a bad state.";
    EMSGSIZE = 90, "The message does not fit the buffer.";
    EOPNOTSUPP = 95, "Operation not supported.";
    ENOBUFS = 105, "No buffer, which is fscache's word for no cache.";
    ETIMEDOUT = 110, "The deadline passed.";
    ESTALE = 116, "What is on disk belongs to something older.";
    ECANCELED = 125, "The operation was cancelled.";
    ERESTARTSYS = 512, "Interrupted: restart the system call. Never seen by user space.";
}

#[cfg(any(
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "sparc",
    target_arch = "sparc64"
))]
compile_error!("errno.rs holds the numbers of asm-generic, this architecture has its own");

impl Errno {
    /// Takes a number as a system call returns it; `None` outside of `-4095..=-1`.
    pub const fn from_raw(raw: i32) -> Option<Self> {
        if raw >= -MAX_ERRNO && raw <= -1 {
            // INVARIANT: The range was just checked.
            Some(Self(raw))
        } else {
            None
        }
    }

    /// The number as a system call returns it: in `-4095..=-1`.
    pub const fn to_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}
