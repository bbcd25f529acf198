// SPDX-License-Identifier: GPL-2.0

//! The store: a directory of files, one an object, that outlives every cache that is bound to it.
//!
//! - [`key`], [`coherency`] and [`identity`] are the format on disk (`docs/protocol.md`); [`xattr`] reads and
//!   writes the attributes, [`volume`] opens the directories, [`namei`] finds, makes, commits and deletes the files;
//!   [`graveyard`] is where directories go.
//! - [`contents`], over the pure map in [`present`], knows which pages of a file hold data.
//! - [`space`] and [`limits`] tell how full the disk is.
//! - [`probe`] and [`ext4`] tell at bind whether a file system can hold a store.
//! - [`options`] is what a daemon may choose.

#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod coherency;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod ext4;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod identity;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod key;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod limits;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod options;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
pub(crate) mod present;

pub(crate) mod contents;
pub(crate) mod graveyard;
pub(crate) mod namei;
pub(crate) mod pages;
pub(crate) mod probe;
pub(crate) mod space;
pub(crate) mod volume;
pub(crate) mod xattr;

use crate::errno::Errno;
use crate::fscache::stats;
use crate::kcompat::workqueue::OwnedQueue;
use crate::ondemand::pollers::Pollers;
use crate::stop_points::Stops;
use crate::store::graveyard::Graveyard;
use crate::store::options::Fill;
use crate::store::options::Options;
use crate::store::space::Account;
use crate::store::space::Need;
use crate::vfs::cred::Credentials;
use crate::vfs::dir::PinnedDir;
use crate::vfs::path::Path;
use crate::vfs::security;
use crate::vfs::security::SecurityId;
use crate::vfs::superblock::FsKind;
use crate::vfs::superblock::Space;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::BStr;
use kernel::sync::Arc;
use kernel::sync::Mutex;

/// What ends with the service, however long the store's memory lives: the pins on its mount and directories.
pub(crate) struct Dirs {
    root: Path,
    volumes: PinnedDir,
    graveyard: Graveyard,
}

impl Dirs {
    /// The directory `cache`, which holds the volumes.
    pub(crate) fn volumes(&self) -> &PinnedDir {
        &self.volumes
    }

    /// The directory `graveyard`.
    pub(crate) fn graveyard(&self) -> &Graveyard {
        &self.graveyard
    }

    /// Waits until all that was written to the file system is on the disk.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn sync(&self) -> Result {
        self.root.sync()
    }
}

/// A directory that is, or was, in use as a store.
#[pin_data]
pub(crate) struct Store {
    cred: Credentials,
    options: Options,
    space: Account,
    /// The largest file that the file system can hold, in bytes.
    max_file_size: u64,
    /// The store's file system.
    kind: FsKind,
    /// Who is told that culling is wanted.
    pollers: Arc<Pollers>,
    /// Where work waits for the disk.
    queue: &'static OwnedQueue,
    stops: Stops,
    #[pin]
    dirs: Mutex<Option<Arc<Dirs>>>,
}

impl Store {
    /// Checks the directory `dir`, and opens it. It is accessed in the security context `context` if there is one.
    ///
    /// # Errors
    ///
    /// Those of [`probe`]; `EBUSY` if the directory is in use; a line in the log says what.
    pub(crate) fn open(
        dir: &CStr,
        context: Option<SecurityId>,
        options: &Options,
        pollers: &Arc<Pollers>,
        queue: &'static OwnedQueue,
        stops: &Stops,
    ) -> Result<Arc<Self>> {
        let cred = Credentials::of_kernel(context)
            .inspect_err(|error| pr_err!("the security context cannot be used: {:?}\n", error))?;
        let root = cred
            .run(|| Path::lookup_dir(dir))
            .inspect_err(|error| pr_err!("cache directory '{}': {:?}\n", dir, error))?;
        probe::check_path(&root)?;
        if options.fill == Fill::Buffered {
            probe::check_maps_after_writing(&root)?;
        }
        let cred = cred.creating_files_as(&root)?;
        let (volumes, graveyard, space) = cred.run(|| open_dirs(&root, &cred))?;
        let max_file_size = root.max_file_size();
        let kind = root.kind();
        let dirs = Dirs {
            root,
            volumes,
            graveyard: Graveyard::new(graveyard),
        };
        let dirs = Arc::new(dirs, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                cred,
                options: options.clone(),
                space: Account::new(&options.limits, space),
                max_file_size,
                kind,
                pollers: pollers.clone(),
                queue,
                stops: stops.clone(),
                dirs <- new_mutex!(Some(dirs), "cachefiles_live"),
            }),
            GFP_KERNEL,
        )
    }

    /// The credentials that the store is accessed with.
    pub(crate) fn cred(&self) -> &Credentials {
        &self.cred
    }

    /// What the daemon has chosen.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Bytes that a file of the store can hold at most.
    pub(crate) fn max_file_size(&self) -> u64 {
        self.max_file_size
    }

    /// Whether small fills go through the page cache.
    pub(crate) fn fills_in_memory(&self) -> bool {
        self.options.fill == Fill::Buffered
    }

    /// What the store's file system is.
    pub(crate) fn kind(&self) -> FsKind {
        self.kind
    }

    /// Where early commits are queued, and what else waits for the disk.
    pub(crate) fn queue(&self) -> &'static OwnedQueue {
        self.queue
    }

    /// Where threads are to stop.
    pub(crate) fn stops(&self) -> &Stops {
        &self.stops
    }

    /// The directories.
    ///
    /// # Errors
    ///
    /// `EIO` if the store is closed.
    pub(crate) fn dirs(&self) -> Result<Arc<Dirs>> {
        self.dirs.lock().clone().ok_or(EIO)
    }

    /// Lets go of the directories, and of the mount with them.
    pub(crate) fn close(&self) {
        let dirs = self.dirs.lock().take();
        drop(dirs);
    }

    /// Checks that there is space, according to the limits, and asks for culling if there is little.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` below the stop marks; what `statfs` says; `EIO` for a store that is closed.
    pub(crate) fn has_space(&self, need: Need) -> Result {
        let space = self.dirs()?.root.space()?;
        let level = self.space.level(space, need);
        self.pollers.note_culling(|now| level.wants_culling(now));
        if level.may_store() {
            return Ok(());
        }
        match need {
            Need::Nothing => return Ok(()),
            Need::File => stats::count_no_create_space(),
            Need::Bytes(_) => stats::count_no_write_space(),
        }
        Err(Errno::ENOBUFS.into())
    }

    /// Looks whether the cache wants culling still, or does now.
    ///
    /// # Errors
    ///
    /// What `statfs` says; `EIO` for a store that is closed.
    pub(crate) fn look_at_space(&self) -> Result {
        self.cred.run(|| self.has_space(Need::Nothing))
    }

    /// The space that writes are accounted for in.
    pub(crate) fn space(&self) -> &Account {
        &self.space
    }
}

/// Opens the two directories of a store, `cache` and `graveyard`, and checks that it can be one.
fn open_dirs(root: &Path, cred: &Credentials) -> Result<(PinnedDir, PinnedDir, Space)> {
    security::may_fill(root)?;
    let open = |name: &[u8]| {
        PinnedDir::open_or_create(root, name, || Ok(()))
            .map(|(dir, _)| dir)
            .inspect_err(|error| pr_err!("directory '{}': {:?}\n", BStr::from_bytes(name), error))
    };
    let volumes = open(b"cache")?;
    // Keys that differ in their case alone would have one file. A directory that ignores case by itself was refused.
    if volumes.is_also(root, b"CACHE")? {
        pr_err!("the cache's file system ignores the case of names\n");
        return Err(Errno::EOPNOTSUPP.into());
    }
    let graveyard = open(b"graveyard")?;
    probe::check_store(&volumes, cred)?;
    Ok((volumes, graveyard, root.space()?))
}
