// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where metrics are served: a TCP port of this machine's own, or a Unix socket.

use std::fmt;
use std::fs;
use std::io;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use serde::Deserialize;

use crate::clients;
use crate::clients::Listen;
use crate::clients::Newcomer;
use crate::clients::Stream;

/// Everybody on this machine may connect, as to a TCP port; who may not is up to the directory.
const SOCKET_MODE: u32 = 0o666;

/// `127.0.0.1:9464`, `[::1]:9464` or `/path/to/socket`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub enum MetricsAddress {
    /// An address of the loopback interface, and a port; 0 takes any that is free, and the log says which.
    Tcp(SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

impl FromStr for MetricsAddress {
    type Err = String;

    /// Refuses addresses that other machines may reach: nothing here knows who asks.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(MetricsAddress::Unix(text.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            "neither ADDRESS:PORT, such as 127.0.0.1:9464, nor an absolute path".to_owned()
        })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{} is not of the loopback interface, and anybody could ask; put a proxy that \
                 knows its clients in front of 127.0.0.1",
                address.ip()
            ));
        }
        Ok(MetricsAddress::Tcp(address))
    }
}

impl TryFrom<String> for MetricsAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map_err(|error| format!("metrics `{text}`: {error}"))
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricsAddress::Tcp(address) => address.fmt(f),
            MetricsAddress::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A socket that listens; it does not block.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    /// The socket's file is removed with it.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    ///
    /// The port or path is in use, or may not be used.
    pub(super) fn bind(address: &MetricsAddress) -> anyhow::Result<Self> {
        let listener = match address {
            MetricsAddress::Tcp(address) => TcpListener::bind(address).map(Listener::Tcp),
            MetricsAddress::Unix(path) => {
                bind_unix(path).map(|it| Listener::Unix(it, path.clone()))
            }
        };
        let listener = listener.and_then(|listener| {
            match &listener {
                Listener::Tcp(it) => it.set_nonblocking(true)?,
                Listener::Unix(it, _) => it.set_nonblocking(true)?,
            }
            Ok(listener)
        });
        listener.with_context(|| {
            format!("cannot serve metrics at {address}: choose another place with --metrics")
        })
    }

    /// Goes on with a socket that listens at this address, and does not block.
    pub(super) fn resume(address: MetricsAddress, socket: OwnedFd) -> Self {
        match address {
            MetricsAddress::Tcp(_) => Listener::Tcp(TcpListener::from(socket)),
            MetricsAddress::Unix(path) => Listener::Unix(UnixListener::from(socket), path),
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> io::Result<MetricsAddress> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(MetricsAddress::Tcp),
            Listener::Unix(_, path) => Ok(MetricsAddress::Unix(path.clone())),
        }
    }
}

impl Listen for Listener {
    fn accept(&self) -> io::Result<Option<Newcomer>> {
        let accepted: io::Result<Box<dyn Stream>> = match self {
            Listener::Tcp(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            }),
            Listener::Unix(listener, _) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            }),
        };
        let newcomer = |stream| Newcomer {
            stream,
            refused: None,
        };
        Ok(clients::if_any(accepted)?.map(newcomer))
    }
}

/// Listens at a path. A socket there that nobody listens at is what an earlier keeper has left.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let left = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if left
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            // If it stays, the next keeper takes it away.
            let _ = fs::remove_file(path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_ask() {
        for good in ["127.0.0.1:9464", "127.9.9.9:0", "[::1]:9464", "/run/m"] {
            let address: MetricsAddress = good.parse().unwrap();
            assert_eq!(address.to_string(), good);
        }
        for bad in [
            "0.0.0.0:9464",
            "[::]:9464",
            "192.0.2.1:80",
            "localhost:9464",
            "127.0.0.1",
            "9464",
            "run/m",
            "",
        ] {
            assert!(bad.parse::<MetricsAddress>().is_err(), "{bad}");
        }
        let error = MetricsAddress::try_from("0.0.0.0:1".to_owned()).unwrap_err();
        assert!(error.contains("0.0.0.0:1"), "{error}");
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_no_other_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        let address = MetricsAddress::Unix(path.clone());
        // Not through `Listener`, so that the file stays.
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&address).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        let error = format!("{:#}", Listener::bind(&address).unwrap_err());
        assert!(error.contains("--metrics"), "{error}");
        drop(listener);
        assert!(!path.exists());

        fs::write(&path, "kept").unwrap();
        Listener::bind(&address).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }
}
