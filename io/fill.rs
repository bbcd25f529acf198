// SPDX-License-Identifier: GPL-2.0

//! Filling objects: what a daemon writes to an anonymous fd, and what it asks there.

use crate::errno::Errno;
use crate::fscache::stats;
use crate::io::holes::Span;
use crate::kcompat::iov::SourceIter;
use crate::object::Current;
use crate::object::Object;
use crate::ondemand::client::FillTarget;
use crate::stop_points::Place;
use crate::store::pages::padded;
use crate::store::pages::PAGE;
use crate::store::space::Need;
use crate::vfs::store_file;
use crate::vfs::store_file::Whence;
use crate::vfs::store_io;
use crate::vfs::store_io::Way;
use crate::vfs::superblock::FsKind;
use kernel::prelude::*;
use kernel::sync::Arc;

impl Object {
    /// How a fill of `len` bytes is stored. A small one is wanted by somebody who waits for little, and
    /// the disk would be most of that wait; a large one is copied faster by the disk itself.
    fn way_of_fill(&self, len: u64) -> Way {
        const LARGE: u64 = 64 << 10;
        if self.store().fills_in_memory() && len < LARGE {
            Way::Cached
        } else {
            Way::Direct
        }
    }
}

impl FillTarget for Object {
    /// Stores what the daemon has written to an anonymous fd.
    ///
    /// # Errors
    ///
    /// See [`anon_fd`](crate::ondemand::anon_fd).
    fn fill(self: &Arc<Self>, pos: u64, from: &mut SourceIter<'_>) -> Result<usize> {
        let len = from.len() as u64;
        let Current {
            file,
            writer,
            contents,
            size,
            new,
        } = self.current_or_found()?;
        self.store().stops().stop_at(Place::FillBegun);
        if size.is_none() && !new {
            // Whether the file that was found is this object's is told by `copen`: until then its
            // attribute vouches for what is in it.
            return Err(Errno::ENOBUFS.into());
        }
        let to = pos.checked_add(len).ok_or(EFBIG)?;
        // A part of a block would make all of it data, zeros included; only the object's own end
        // may be such a part.
        if pos % PAGE != 0 || (to % PAGE != 0 && size != Some(to)) {
            stats::count_dio_misfit();
            return Err(EINVAL);
        }
        let end = match size {
            Some(size) => padded(size).ok_or(EFBIG)?,
            None => self.store().max_file_size(),
        };
        if to > end {
            return Err(EFBIG);
        }
        let way = self.way_of_fill(len);
        let filling = contents.begin_fill(pos..to)?;
        let written = self.store().cred().run(|| {
            if let Err(error) = self.store().has_space(Need::Bytes(len)) {
                // What is stored already can be stored again, where it is written to the same place.
                let again = self.store().kind() != FsKind::Btrfs
                    && Span::around(pos, len)
                        .is_some_and(|span| contents.first_hole(span).is_none());
                if !again {
                    return Err(error);
                }
            }
            let _writing = self.store().space().begin_write(len);
            stats::count_write();
            let written = store_io::write(way, &writer, pos, from);
            filling.end(&file, way, written, size)
        })?;
        if written > 0 {
            self.filled();
            if way == Way::Cached {
                self.uses_memory();
                // The withdrawal has not seen this fill.
                if self.current().is_err() {
                    self.store().cred().run(|| contents.settle_rest(&file))?;
                }
            }
        }
        Ok(written)
    }

    /// `lseek` of an anonymous fd.
    ///
    /// # Errors
    ///
    /// `ENXIO` beyond the end, `EINVAL`; those of [`Object::current_or_found`], `ENOBUFS` for one that is
    /// withdrawn.
    fn seek(&self, offset: i64, whence: Whence) -> Result<i64> {
        let Current { file, contents, .. } = self.current_or_found()?;
        let end = store_file::size(&file);
        let pos = || u64::try_from(offset).map_err(|_| ENXIO);
        let found = match whence {
            Whence::End => {
                let end = i64::try_from(end).map_err(|_| EINVAL)?;
                return end.checked_add(offset).filter(|to| *to >= 0).ok_or(EINVAL);
            }
            Whence::Data => contents.seek(pos()?, true, end),
            Whence::Hole => contents.seek(pos()?, false, end),
        };
        i64::try_from(found?).map_err(|_| EFBIG)
    }
}
