// SPDX-License-Identifier: GPL-2.0

//! The files of the store: finding, making, committing and deleting them.
//!
//! A file that is made anew has no name until data was stored and its attributes are set: a name in
//! the store always stands for a file whose attributes are set. Called with the cache's credentials in
//! force.

use crate::errno::Errno;
use crate::fscache::cookie::Cookie;
use crate::fscache::cookie::Flag;
use crate::kcompat::fmt::Display;
use crate::kcompat::print::ratelimit;
use crate::kcompat::print::Once;
use crate::stop_points::Place;
use crate::store::contents::Contents;
use crate::store::identity::Match;
use crate::store::identity::Token;
use crate::store::pages::PAGE;
use crate::store::space::Need;
use crate::store::volume::VolumeDir;
use crate::store::xattr;
use crate::store::Dirs;
use crate::store::Store;
use crate::vfs::dir::Entry;
use crate::vfs::removal;
use crate::vfs::store_file::StoreFile;
use kernel::prelude::*;
use kernel::str::BStr;
use kernel::sync::Arc;

/// A file of the store, as an object has it.
pub(crate) struct Stored {
    pub(crate) file: StoreFile,
    /// What it holds.
    pub(crate) contents: Arc<Contents>,
    /// It has no name yet: it is committed once data was stored, or when the object is withdrawn.
    pub(crate) unnamed: bool,
    /// Which version of the object it holds; not told before the object was opened.
    pub(crate) token: Token,
}

/// Opens the file `name`, or makes one.
///
/// # Errors
///
/// `EBUSY` if it is in use, `ENOBUFS` if there is no space for a new one, what the file system says.
pub(crate) fn look_up(
    store: &Store,
    dirs: &Dirs,
    volume: &VolumeDir,
    key_hash: u32,
    name: &[u8],
) -> Result<Stored> {
    let dir = volume.fanout(store, key_hash)?;
    match dir.open_file(name, store.cred())? {
        Entry::File(file) => {
            return Ok(Stored {
                contents: learn(store, &file, name)?,
                file,
                unnamed: false,
                token: Token::UNTOLD,
            });
        }
        Entry::Nothing => {}
        Entry::Other(dentry) => {
            if ratelimit() {
                pr_warn!("'{}' in the store is no file\n", BStr::from_bytes(name));
            }
            let removed = if dentry.is_dir() {
                dirs.graveyard().bury(&dir, &dentry)
            } else {
                removal::unlink(dir.path(), &dentry)
            };
            match removed {
                // Somebody else was faster.
                Err(error) if error == Errno::ESTALE.into() => {}
                removed => removed?,
            }
        }
    }
    create(store, volume, key_hash)
}

/// Finds out what a file holds.
fn learn(store: &Store, file: &StoreFile, name: &[u8]) -> Result<Arc<Contents>> {
    let name = BStr::from_bytes(name);
    // What an earlier user could not write is a hole, and asked for again.
    if let Err(error) = file.start_over() {
        pr_warn!("'{}': some of its data was lost: {:?}\n", name, error);
    }
    store.stops().stop_at(Place::PagesDropped);
    Contents::learn(file.file(), store.kind())
        .inspect_err(|error| pr_warn!("searching '{}' for data: {:?}\n", name, error))
}

/// Makes a file without a name.
///
/// # Errors
///
/// `ENOBUFS` if there is no space for it, what the file system says.
pub(crate) fn create(store: &Store, volume: &VolumeDir, key_hash: u32) -> Result<Stored> {
    store.has_space(Need::File)?;
    let dir = volume.fanout(store, key_hash)?;
    Ok(Stored {
        file: dir.create_tmpfile(store.cred())?,
        contents: Contents::nothing()?,
        unnamed: true,
        token: Token::UNTOLD,
    })
}

/// Whether a file that was found belongs to the cookie as it is now, and holds this version. If the version is
/// not told, the file is of no known one from now on.
///
/// # Errors
///
/// What the file system says when the attributes are read, or the second one is changed.
pub(crate) fn is_coherent(
    stored: &Stored,
    cookie: &Cookie,
    token: &Token,
    object: &impl Display,
) -> Result<bool> {
    if !xattr::check_object(stored.file.path(), cookie.object_size())? {
        return Ok(false);
    }
    let why = match xattr::check_identity(&stored.file, token)? {
        Match::Same => return Ok(true),
        Match::NotTold => return forget_version(stored, object).map(|()| true),
        Match::Unknown => "it is not known which version it is of",
        Match::Other => "it is of another version",
        Match::Copy => "it is a copy, whose holes may have become zeros",
    };
    if ratelimit() {
        pr_info!("{}: what is stored is replaced: {}\n", object, why);
    }
    Ok(false)
}

/// Checks that an object which was opened before is opened as the same version.
///
/// # Errors
///
/// `ESTALE` for another version; what the file system says.
pub(crate) fn is_same_version(stored: &mut Stored, token: &Token, object: &impl Display) -> Result {
    if stored.token == *token {
        return Ok(());
    }
    if token.is_told() {
        return Err(Errno::ESTALE.into());
    }
    if !stored.unnamed {
        forget_version(stored, object)?;
    }
    stored.token = Token::UNTOLD;
    Ok(())
}

/// Notes on the disk that nobody knows which version a file holds, before anything can be added to it by
/// a daemon that does not say which one it serves.
fn forget_version(stored: &Stored, object: &impl Display) -> Result {
    static TOLD: Once = Once::new();
    if TOLD.first() {
        pr_warn!(
            "{}: the daemon does not tell versions; what another one has stored is of no known version from now on\n",
            object
        );
    }
    xattr::set_identity(&stored.file, &Token::UNTOLD)?;
    stored.file.sync()
}

/// Makes a file `padded` bytes long.
///
/// # Errors
///
/// What the file system says.
pub(crate) fn set_padded_size(file: &StoreFile, padded: u64) -> Result {
    let size = file.size();
    if size == padded {
        return Ok(());
    }
    if size < padded && size % PAGE != 0 {
        // What follows the data in its last page is none of ours: it must not become data.
        file.set_size(size - size % PAGE)?;
    }
    file.set_size(padded)
}

/// Sets the attributes, then has `link` give the file its name, unless both are done.
///
/// After a crash of the machine the name stands for a file with both attributes, and what the file
/// system tells as data was written before it became data (direct writes are so on ext4 and XFS).
///
/// # Errors
///
/// What a security module or the file system says, and `link`; a new file is without a name then, and is gone
/// once it is closed.
pub(crate) fn commit(
    cookie: &Cookie,
    stored: &mut Stored,
    link: impl FnOnce(&mut StoreFile) -> Result,
) -> Result {
    let changed = cookie.take_flag(Flag::LocalWrite);
    if cookie.take_flag(Flag::NeedsUpdate) || changed {
        xattr::set_object(stored.file.path(), cookie.object_size())
            .inspect_err(|_| cookie.set_flag(Flag::NeedsUpdate, true))?;
    }
    if stored.unnamed {
        xattr::set_identity(&stored.file, &stored.token)?;
        link(&mut stored.file)?;
        stored.unnamed = false;
    }
    Ok(())
}

/// Takes the name of a file away.
///
/// # Errors
///
/// What a security module or the file system says.
pub(crate) fn delete(store: &Store, volume: &VolumeDir, key_hash: u32, stored: &Stored) -> Result {
    let dir = volume.fanout(store, key_hash)?;
    removal::unlink(dir.path(), stored.file.path().dentry())
}
