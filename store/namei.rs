// SPDX-License-Identifier: GPL-2.0

//! The files of the store: finding, making, committing and deleting them.
//!
//! A file that is made anew has no name until data was stored and its attributes are set: a name in
//! the store always stands for a file whose attributes are set. Called with the cache's credentials in
//! force.

use crate::cache::culling;
use crate::cache::volume::Volume;
use crate::cache::Cache;
use crate::cache::Live;
use crate::cache::PAGE;
use crate::errno::Errno;
use crate::fscache::cookie::Cookie;
use crate::fscache::cookie::Flag;
use crate::kcompat::print::ratelimit;
use crate::kcompat::print::Once;
use crate::object::Bound;
use crate::object::Object;
use crate::object::Stored;
use crate::stop_points::Place;
use crate::store::contents::Contents;
use crate::store::identity::Match;
use crate::store::identity::Token;
use crate::store::space::Need;
use crate::store::xattr;
use crate::vfs::dir::Entry;
use crate::vfs::removal;
use crate::vfs::store_file::StoreFile;
use kernel::prelude::*;
use kernel::str::BStr;
use kernel::sync::Arc;

/// The size of the file for an object of `size` bytes: whole pages. `None` if that overflows.
pub(crate) fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(PAGE)
}

/// Opens the file `name`, or makes one.
///
/// # Errors
///
/// `EBUSY` if it is in use, `ENOBUFS` if there is no space for a new one, what the file system says.
pub(crate) fn look_up(live: &Live, volume: &Volume, key_hash: u32, name: &[u8]) -> Result<Stored> {
    let dir = volume.fanout(key_hash)?;
    match dir.open_file(name, volume.cache().cred())? {
        Entry::File(file) => {
            return Ok(Stored {
                contents: learn(volume.cache(), &file, name)?,
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
                culling::bury(live, &dir, &dentry)
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
    create(volume.cache(), volume, key_hash)
}

/// Finds out what a file holds.
fn learn(cache: &Cache, file: &StoreFile, name: &[u8]) -> Result<Arc<Contents>> {
    let name = BStr::from_bytes(name);
    // What an earlier user could not write is a hole, and asked for again.
    if let Err(error) = file.start_over() {
        pr_warn!("'{}': some of its data was lost: {:?}\n", name, error);
    }
    cache.daemon().stop_at(Place::PagesDropped);
    Contents::learn(file.file(), cache.kind())
        .inspect_err(|error| pr_warn!("searching '{}' for data: {:?}\n", name, error))
}

/// Makes a file without a name.
///
/// # Errors
///
/// `ENOBUFS` if there is no space for it, what the file system says.
pub(crate) fn create(cache: &Cache, volume: &Volume, key_hash: u32) -> Result<Stored> {
    cache.has_space(Need::File)?;
    let dir = volume.fanout(key_hash)?;
    Ok(Stored {
        file: dir.create_tmpfile(cache.cred())?,
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
    object: &Object,
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
pub(crate) fn is_same_version(stored: &mut Stored, token: &Token, object: &Object) -> Result {
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
fn forget_version(stored: &Stored, object: &Object) -> Result {
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

/// Sets the attributes, then gives the file its name, unless both are done.
///
/// After a crash of the machine the name stands for a file with both attributes, and what the file
/// system tells as data was written before it became data (direct writes are so on ext4 and XFS).
///
/// # Errors
///
/// What a security module or the file system says; a new file is without a name then, and is gone
/// once it is closed.
pub(crate) fn commit(bound: &Bound, stored: &mut Stored, object: &Object) -> Result {
    let cookie = &bound.cookie;
    let changed = cookie.take_flag(Flag::LocalWrite);
    if cookie.take_flag(Flag::NeedsUpdate) || changed {
        xattr::set_object(stored.file.path(), cookie.object_size())
            .inspect_err(|_| cookie.set_flag(Flag::NeedsUpdate, true))?;
    }
    if stored.unnamed {
        xattr::set_identity(&stored.file, &stored.token)?;
        let dir = bound.volume.fanout(object.key_hash())?;
        dir.link(&mut stored.file, object.file_name()?)?;
        stored.unnamed = false;
    }
    Ok(())
}

/// Takes the name of a file away.
///
/// # Errors
///
/// What a security module or the file system says.
pub(crate) fn delete(volume: &Volume, key_hash: u32, stored: &Stored) -> Result {
    let dir = volume.fanout(key_hash)?;
    removal::unlink(dir.path(), stored.file.path().dentry())
}
