// SPDX-License-Identifier: GPL-2.0

//! The files of the store: finding, making, committing and deleting them.
//!
//! A file that is made anew has no name until data was stored and its attribute is set: a name in
//! the store always stands for a file whose attribute is set. Called with the cache's credentials in
//! force.

use crate::cache::Cache;
use crate::cache::Live;
use crate::cache::PAGE;
use crate::contents::Contents;
use crate::culling;
use crate::errno::Errno;
use crate::fscache::cookie::Cookie;
use crate::fscache::cookie::Flag;
use crate::kcompat::print::ratelimit;
use crate::object::Bound;
use crate::object::Object;
use crate::object::Stored;
use crate::space::Need;
use crate::stop_points::Place;
use crate::vfs::dir::Entry;
use crate::vfs::page_cache;
use crate::vfs::removal;
use crate::vfs::store_file::StoreFile;
use crate::volume::Volume;
use crate::xattr;
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
    if let Err(error) = page_cache::start_over(file.file()) {
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
    })
}

/// Whether a file that was found belongs to the cookie as it is now.
///
/// # Errors
///
/// What the file system says when the attribute is read.
pub(crate) fn is_coherent(stored: &Stored, cookie: &Cookie) -> Result<bool> {
    xattr::check_object(stored.file.path(), cookie.object_size())
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

/// Sets the attribute, then gives the file its name, unless both are done.
///
/// After a crash of the machine the name stands for a file with an attribute, and what the file
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
