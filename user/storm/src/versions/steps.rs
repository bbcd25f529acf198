// SPDX-License-Identifier: MIT OR Apache-2.0

//! The steps of a sequence, and what must be true after each.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{bail, ensure, Context, Result};
use rand::seq::IndexedRandom;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rustix::io::Errno;

use super::blocks::{Version, BLOCK, BLOCKS, FILE};
use super::mounted::{read_blocks, unmounted, Mounted, SECONDS};
use super::published::{manifest_of, publish, Published};
use super::servers::{Servers, DOMAIN, SOURCE};
use super::{errno_of, name_of, Options};
use crate::daemon::{kill_worker, Daemon, Setup};
use crate::deadline::within;
use crate::run::mount_image;
use crate::watch;

/// Images; each second one is compressed.
pub(super) const IMAGES: u8 = 3;
/// Versions of each.
pub(super) const VERSIONS: u8 = 4;

/// What can be done, and how often.
const STEPS: &[(Step, u32)] = &[
    (Step::Mount, 24),
    (Step::Read, 40),
    (Step::Unmount, 12),
    (Step::Publish { in_place: false }, 8),
    (Step::Publish { in_place: true }, 5),
    (Step::Manifest, 3),
    (Step::KillWorker, 8),
    (Step::Restart, 4),
    (Step::ChangeServer, 3),
    (Step::CopyStore, 2),
    (Step::DropCaches, 6),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Mount,
    Read,
    Unmount,
    /// Another version takes the place of an image, by a rename, or in the same file.
    Publish {
        in_place: bool,
    },
    /// An image gets a manifest, or loses it.
    Manifest,
    KillWorker,
    /// The daemon is stopped and started: what is mounted reads on what the kernel has, and no more.
    Restart,
    /// The daemon is stopped, and started with another server of the same images.
    ChangeServer,
    /// The daemon is stopped, and the store is replaced by a copy in which holes are zeros.
    CopyStore,
    DropCaches,
}

/// One sequence.
pub(super) struct State {
    files: Vec<Vec<PathBuf>>,
    servers: Option<Servers>,
    setup: Setup,
    daemon: Option<Daemon>,
    published: Vec<Published>,
    mounted: Vec<Mounted>,
    places: u64,
    /// How often something was published.
    puts: u64,
    read: u64,
}

impl State {
    /// Publishes the first version of each image, and starts the daemon on an empty store.
    ///
    /// # Errors
    /// When a file cannot be written or the daemon does not start.
    pub(super) fn new(options: &Options, files: &[Vec<PathBuf>], seed: u64) -> Result<Self> {
        let dir = options.disk.join(format!("sequence{seed}"));
        let source = dir.join("source");
        std::fs::create_dir_all(&source)?;
        let nginx = options.nginx.as_ref().filter(|_| seed % 2 == 1);
        let servers = nginx
            .map(|nginx| Servers::start(nginx, &source, &dir.join("servers")))
            .transpose()?;
        let mut more = options.serve.clone();
        more.extend(
            servers
                .iter()
                .map(|servers| format!("--config={}", servers.config().display())),
        );
        let setup = Setup {
            program: options.daemon.clone(),
            cache: dir.join("cache"),
            source,
            run_dir: options.run_dir.clone(),
            log: options.results.join(format!("ondemandd-{seed}.log")),
            more,
        };
        let mut state = State {
            files: files.to_vec(),
            servers,
            setup,
            daemon: None,
            published: Vec::new(),
            mounted: Vec::new(),
            places: 0,
            puts: 0,
            read: 0,
        };
        for image in 0..IMAGES {
            state.put(image, 0, false)?;
            state.published.push(Published {
                version: 0,
                changes: 0,
                has_manifest: false,
                lost_manifest: false,
            });
        }
        state.start()?;
        Ok(state)
    }

    /// How many blocks were compared.
    pub(super) fn blocks_read(&self) -> u64 {
        self.read
    }

    /// Does something.
    ///
    /// # Errors
    /// A byte is of another version than that of its mount; something fails that must not.
    pub(super) fn step(&mut self, rng: &mut ChaCha8Rng, told: &mut Vec<String>) -> Result<()> {
        let (step, _) = STEPS
            .choose_weighted(rng, |(_, weight)| *weight)
            .context("no step")?;
        let image = rng.random_range(0..IMAGES);
        told.push(format!("{step:?} {}", name_of(image)));
        match *step {
            Step::Mount => self.mount(image, told),
            Step::Read => self.read(rng, told),
            Step::Unmount => self.unmount(rng),
            Step::Publish { in_place } => self.publish(rng, image, in_place, told),
            Step::Manifest => self.manifest(image),
            Step::KillWorker => {
                kill_worker(&self.setup.run_dir, None);
                Ok(())
            }
            Step::Restart => self.restart(),
            Step::ChangeServer => self.change_server(),
            Step::CopyStore => self.copy_store(),
            Step::DropCaches => within("drop_caches", SECONDS, watch::drop_caches),
        }
    }

    /// Unmounts all and stops the daemon.
    ///
    /// # Errors
    /// When one of them does not end.
    pub(super) fn end(&mut self) -> Result<()> {
        self.unmount_all()?;
        self.stop()
    }

    fn start(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start(&self.setup, None)?);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            let status = daemon.stop()?;
            ensure!(status.success(), "the daemon ended with {status}");
        }
        self.mounted
            .iter_mut()
            .for_each(|mounted| mounted.dead = true);
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// What the other server says of an image is another version of it, unless it has a manifest.
    fn change_server(&mut self) -> Result<()> {
        let Some(servers) = &mut self.servers else {
            return Ok(());
        };
        servers.change()?;
        self.published.iter_mut().for_each(|it| it.changes += 1);
        self.restart()
    }

    /// Publishes a version of an image. Servers tell versions apart by seconds: there each has another one.
    fn put(&mut self, image: u8, version: u8, in_place: bool) -> Result<()> {
        let file = &self.files[usize::from(image)][usize::from(version)];
        let to = self.setup.source.join(name_of(image));
        if self.servers.is_none() {
            return publish(file, &to, in_place, None);
        }
        self.puts += 1;
        let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.puts);
        publish(file, &to, false, Some(mtime))
    }

    /// As a backup does that knows no holes.
    fn copy_store(&mut self) -> Result<()> {
        self.unmount_all()?;
        self.stop()?;
        let copy = self.setup.cache.with_extension("copy");
        let status = Command::new("cp")
            .args(["-a", "--sparse=never"])
            .args([&self.setup.cache, &copy])
            .status()?;
        ensure!(status.success(), "cp: {status}");
        std::fs::remove_dir_all(&self.setup.cache)?;
        std::fs::rename(&copy, &self.setup.cache)?;
        self.start()
    }

    fn mount(&mut self, image: u8, told: &mut Vec<String>) -> Result<()> {
        let published = self.published[usize::from(image)];
        // What is mounted already has the version that it has.
        if self.mounted.iter().any(|mounted| mounted.image == image) {
            return Ok(());
        }
        self.places += 1;
        let at = self.setup.run_dir.join(format!("mnt{}", self.places));
        let (mut name, mut domain, place) = (name_of(image), None, at.clone());
        if self.servers.is_some() {
            (name, domain) = (format!("{SOURCE}/{name}"), Some(DOMAIN));
        }
        let done = within(&format!("mount {name}"), SECONDS, move || {
            mount_image(&name, domain, &place)
        });
        if let Err(error) = done {
            ensure!(published.lost_manifest, "{error:#}");
            told.push("  refused: its manifest is lost".into());
            return Ok(());
        }
        self.mounted.push(Mounted {
            image,
            version: published.version,
            changes: published.changes,
            dead: false,
            at,
        });
        Ok(())
    }

    fn read(&mut self, rng: &mut ChaCha8Rng, told: &mut Vec<String>) -> Result<()> {
        let Some(mounted) = self.mounted.choose(rng).cloned() else {
            return Ok(());
        };
        let first = rng.random_range(0..BLOCKS);
        let blocks = rng.random_range(1..=16).min(BLOCKS - first);
        let path = mounted.at.join(FILE);
        let what = format!("read {} blocks from {first} of {}", blocks, path.display());
        let done = within(&what, SECONDS, move || read_blocks(&path, first, blocks));
        let data = match done {
            Ok(data) => data,
            Err(error) => {
                let changed = self.published[usize::from(mounted.image)].changes != mounted.changes;
                // Without a cache fscache itself refuses.
                let errno = errno_of(&error);
                ensure!(
                    errno == Some(Errno::IO) || mounted.dead && errno == Some(Errno::NOBUFS),
                    "{error:#}"
                );
                ensure!(
                    changed || mounted.dead,
                    "of an image that has not changed: {error:#}"
                );
                told.push(format!("  {what}: an error"));
                return Ok(());
            }
        };
        for (index, block) in (first..).zip(data.chunks_exact(BLOCK)) {
            let found = Version::of_block(mounted.image, VERSIONS, index, block)
                .with_context(|| format!("{what}, mounted as version {}", mounted.version))?;
            ensure!(
                found.number == mounted.version,
                "{what}: block {index} is of version {}, mounted is {}",
                found.number,
                mounted.version
            );
            self.read += 1;
        }
        Ok(())
    }

    fn unmount(&mut self, rng: &mut ChaCha8Rng) -> Result<()> {
        if self.mounted.is_empty() {
            return Ok(());
        }
        let mounted = self
            .mounted
            .swap_remove(rng.random_range(0..self.mounted.len()));
        unmounted(&mounted.at)
    }

    fn unmount_all(&mut self) -> Result<()> {
        std::mem::take(&mut self.mounted)
            .iter()
            .try_for_each(|mounted| unmounted(&mounted.at))
    }

    fn publish(
        &mut self,
        rng: &mut ChaCha8Rng,
        image: u8,
        in_place: bool,
        told: &mut Vec<String>,
    ) -> Result<()> {
        let index = usize::from(image);
        let version = rng.random_range(0..VERSIONS);
        told.push(format!("  version {version}"));
        let source = self.setup.source.join(name_of(image));
        // The manifest of the one before is none of it.
        let published = &mut self.published[index];
        if published.has_manifest {
            std::fs::remove_file(manifest_of(&source))?;
            published.has_manifest = false;
            published.lost_manifest = true;
        }
        published.version = version;
        published.changes += 1;
        self.put(image, version, in_place)
    }

    fn manifest(&mut self, image: u8) -> Result<()> {
        let published = &mut self.published[usize::from(image)];
        let source = self.setup.source.join(name_of(image));
        // Either is another identity, and so a change for who has it mounted.
        published.changes += 1;
        if published.has_manifest {
            std::fs::remove_file(manifest_of(&source))?;
            (published.has_manifest, published.lost_manifest) = (false, true);
            return Ok(());
        }
        let output = Command::new(&self.setup.program)
            .arg("manifest")
            .arg(&source)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!(
                "ondemandd manifest: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        (published.has_manifest, published.lost_manifest) = (true, false);
        Ok(())
    }
}
