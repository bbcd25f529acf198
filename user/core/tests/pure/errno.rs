// SPDX-License-Identifier: MIT OR Apache-2.0

//! Error numbers at the ends of their range.

use ondemand_core::errno::Errno;

#[test]
fn only_error_numbers_are_taken() {
    for (raw, taken) in [
        (i32::MIN, false),
        (-4096, false),
        (-4095, true),
        (-1, true),
        (0, false),
        (1, false),
        (i32::MAX, false),
    ] {
        assert_eq!(
            Errno::from_raw(raw).map(Errno::to_raw),
            taken.then_some(raw)
        );
    }
}

/// A wrong number in the list would reach user space. The host's libc has its own opinion.
#[test]
fn numbers_agree_with_the_host() {
    let mut named = 0;
    for raw in (-133..=-1).rev() {
        let errno = Errno::from_raw(raw).unwrap();
        let Some(name) = errno.name() else { continue };
        named += 1;
        let host = std::io::Error::from_raw_os_error(-raw).kind();
        let expected = match name {
            "EPERM" | "EACCES" => std::io::ErrorKind::PermissionDenied,
            "ENOENT" => std::io::ErrorKind::NotFound,
            "EINTR" => std::io::ErrorKind::Interrupted,
            "EAGAIN" => std::io::ErrorKind::WouldBlock,
            "ENOMEM" => std::io::ErrorKind::OutOfMemory,
            "EBUSY" => std::io::ErrorKind::ResourceBusy,
            "EEXIST" => std::io::ErrorKind::AlreadyExists,
            "EXDEV" => std::io::ErrorKind::CrossesDevices,
            "ENOTDIR" => std::io::ErrorKind::NotADirectory,
            "EISDIR" => std::io::ErrorKind::IsADirectory,
            "EINVAL" => std::io::ErrorKind::InvalidInput,
            "EFBIG" => std::io::ErrorKind::FileTooLarge,
            "ENOSPC" => std::io::ErrorKind::StorageFull,
            "EROFS" => std::io::ErrorKind::ReadOnlyFilesystem,
            "EOPNOTSUPP" => std::io::ErrorKind::Unsupported,
            "ETIMEDOUT" => std::io::ErrorKind::TimedOut,
            "ESTALE" => std::io::ErrorKind::StaleNetworkFileHandle,
            _ => continue,
        };
        assert_eq!(host, expected, "{name}");
    }
    assert_eq!(named, 30);
}

#[test]
fn debug_shows_the_symbol() {
    assert_eq!(format!("{:?}", Errno::EBADFD), "EBADFD");
    assert_eq!(
        format!("{:?}", Errno::from_raw(-4095).unwrap()),
        "Errno(-4095)"
    );
}
