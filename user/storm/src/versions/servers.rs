// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two servers of the same images, which identify a version in different ways: one by an ETag, the other by
//! Last-Modified alone.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::daemon::wait_for;

/// The name of the source in the daemon's configuration.
pub(super) const SOURCE: &str = "web";

/// The domain of the mounts: images of named sources need one.
pub(super) const DOMAIN: &str = "versions";

/// Where the servers listen.
const PORTS: [u16; 2] = [8081, 8082];

/// nginx, as both servers. Ends with this.
pub(super) struct Servers {
    child: Child,
    config: PathBuf,
    current: usize,
}

impl Servers {
    /// Starts them, for what is in `images`; what they write is in `dir`, and the daemon's configuration too.
    ///
    /// # Errors
    /// When the program does not start, or nobody listens in time.
    pub(super) fn start(nginx: &Path, images: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        // A guest may have no loopback yet.
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()?;
        ensure!(up.success(), "ip link set lo up: {up}");
        let config = dir.join("nginx.conf");
        fs::write(&config, nginx_config(images, dir))?;
        let child = Command::new(nginx)
            .arg("-e")
            .arg(dir.join("nginx.log"))
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", nginx.display()))?;
        let servers = Servers {
            child,
            config: dir.join("ondemandd.toml"),
            current: 0,
        };
        wait_for("nginx", Duration::from_secs(20), || {
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, PORTS[1])).ok())
        })?;
        servers.write_config()?;
        Ok(servers)
    }

    /// The daemon's configuration file, which names the current server.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// From its next start on the daemon uses the other server.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub(super) fn change(&mut self) -> Result<()> {
        self.current = 1 - self.current;
        self.write_config()
    }

    fn write_config(&self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}", PORTS[self.current]);
        let text = format!("[sources.{SOURCE}]\nkind = \"http\"\nurl = \"{url}\"\n");
        Ok(fs::write(&self.config, text)?)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process: its end ends both servers.
fn nginx_config(images: &Path, dir: &Path) -> String {
    let (images, dir) = (images.display(), dir.display());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {dir}/tmp; "))
        .concat();
    let [with, without] = PORTS;
    format!(
        "user root; daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log warn;
         events {{ worker_connections 64; }}
         http {{ access_log off; {temporary} root {images};
             server {{ listen 127.0.0.1:{with}; }}
             server {{ listen 127.0.0.1:{without}; etag off; }}
         }}\n"
    )
}
