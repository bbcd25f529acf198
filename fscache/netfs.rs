// SPDX-License-Identifier: GPL-2.0

//! Reads of a netfs from the cache.
//!
//! C header: [`include/linux/netfs.h`](srctree/include/linux/netfs.h)
//! (`struct netfs_cache_ops`)
//!
//! # A read never fails before it begins
//!
//! EROFS drops its last reference to a compressed read's bio on a synchronous error, and uses the
//! bio after that (defect D47); it also completes one bio once for each piece (D1). So
//! `prepare_ondemand_read` always answers that the full length can be read from the cache, and an
//! error comes, once and through the callback, from the `read` that follows.

use crate::bindings;
use crate::fscache::backend::object;
use crate::fscache::backend::Backend;
use crate::fscache::backend::Operations;
use crate::fscache::backend::Source;
use crate::fscache::resources::CacheResources;
use crate::fscache::termination::Callback;
use crate::fscache::termination::PendingRead;
use crate::fscache::termination::Termination;
use crate::kcompat::fs::File;
use crate::kcompat::iov::DestIter;
use crate::kcompat::types::ARef;
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::ffi::c_int;
use kernel::ffi::c_ulong;
use kernel::ffi::c_void;
use kernel::prelude::*;
use kernel::sync::ArcBorrow;

const EIOCBQUEUED: c_int = -(bindings::EIOCBQUEUED as c_int);
const ENOBUFS: c_int = -(bindings::ENOBUFS as c_int);

impl CacheResources {
    /// The object that is read.
    fn object<B: Backend>(&self) -> Option<ArcBorrow<'_, B::Object>> {
        // SAFETY: The operation's access keeps the object attached.
        unsafe { object::<B>(self.cookie()) }
    }

    /// Has the operation's reads carried out by `B::Operations`.
    pub(super) fn set_operations<B: Backend>(&mut self) {
        self.set_ops(&Table::<B::Operations>::OPS);
    }
}

struct Table<O>(PhantomData<O>);

impl<O: Operations> Table<O> {
    const OPS: bindings::netfs_cache_ops = bindings::netfs_cache_ops {
        end_operation: Some(Self::end_operation),
        read: Some(Self::read),
        write: Some(Self::write),
        issue_write: Some(Self::issue_write),
        expand_readahead: None,
        prepare_read: Some(Self::prepare_read),
        prepare_write_subreq: Some(Self::prepare_write_subreq),
        prepare_write: Some(Self::prepare_write),
        prepare_ondemand_read: Some(Self::prepare_ondemand_read),
        query_occupancy: Some(Self::query_occupancy),
    };

    /// What an operation is given once something has failed: its read fails.
    const FAILED: bindings::netfs_cache_ops = bindings::netfs_cache_ops {
        read: Some(Self::failed_read),
        ..Self::OPS
    };

    /// May be called in interrupt context.
    ///
    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn end_operation(resources: *mut bindings::netfs_cache_resources) {
        // SAFETY: The operation is ending; nobody else uses its resources.
        let resources = unsafe { CacheResources::from_raw(resources) };
        resources.set_file(None);
        let cookie = resources.cookie().as_ptr();
        // SAFETY: Ends the access that fscache has begun for this operation.
        unsafe { bindings::fscache_end_io(cookie) }
    }

    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn read(
        resources: *mut bindings::netfs_cache_resources,
        start: bindings::loff_t,
        iter: *mut bindings::iov_iter,
        _hole: bindings::netfs_read_from_hole,
        function: bindings::netfs_io_terminated_t,
        private: *mut c_void,
    ) -> c_int {
        // SAFETY: The operation has begun; the caller leaves resources and iterator to us.
        let resources = unsafe { CacheResources::from_raw(resources) };
        // SAFETY: As above.
        let read = unsafe { Self::pending(resources, iter, function, private) };
        let known = (
            resources.object::<O::Backend>(),
            resources.file(),
            u64::try_from(start),
        );
        match known {
            (Some(object), Some(file), Ok(start)) => {
                // The callback may end the operation, and with it its file.
                let file: ARef<File> = file.into();
                O::read(object, &file, start, read);
            }
            _ => read.fail(EIO),
        }
        EIOCBQUEUED
    }

    /// # Safety
    ///
    /// The arguments are those that a netfs has called `read` with, whose call has not returned.
    unsafe fn pending<'a>(
        resources: &CacheResources,
        iter: *mut bindings::iov_iter,
        function: bindings::netfs_io_terminated_t,
        private: *mut c_void,
    ) -> PendingRead<'a> {
        // SAFETY: A netfs passes a pointer to an iterator.
        let iter = unsafe { NonNull::new_unchecked(iter) };
        // SAFETY: It is the destination of a read, and ours during the call, with its buffer.
        let iter = unsafe { DestIter::from_raw(iter) };
        // SAFETY: A netfs keeps the buffer until its callback is called.
        unsafe { PendingRead::new(iter, Termination::new(resources, function, private)) }
    }

    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn failed_read(
        resources: *mut bindings::netfs_cache_resources,
        _start: bindings::loff_t,
        iter: *mut bindings::iov_iter,
        _hole: bindings::netfs_read_from_hole,
        function: bindings::netfs_io_terminated_t,
        private: *mut c_void,
    ) -> c_int {
        // SAFETY: As in `read`.
        let resources = unsafe { CacheResources::from_raw(resources) };
        // SAFETY: As in `read`.
        unsafe { Self::pending(resources, iter, function, private) }.fail(EIO);
        EIOCBQUEUED
    }

    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn prepare_ondemand_read(
        resources: *mut bindings::netfs_cache_resources,
        start: bindings::loff_t,
        len: *mut usize,
        _size: bindings::loff_t,
        _flags: *mut c_ulong,
        _ino: bindings::ino_t,
    ) -> bindings::netfs_io_source {
        // SAFETY: The operation has begun; the caller leaves its resources to us.
        let resources = unsafe { CacheResources::from_raw(resources) };
        // SAFETY: The caller's length is valid.
        let len = unsafe { *len };
        let prepared = match (resources.object::<O::Backend>(), u64::try_from(start)) {
            (Some(object), Ok(start)) => O::prepare_ondemand_read(object, start, len),
            _ => Err(EIO),
        };
        match prepared {
            Ok(file) => resources.set_file(Some(file)),
            Err(_) => resources.set_ops(&Self::FAILED),
        }
        bindings::netfs_io_source_NETFS_READ_FROM_CACHE
    }

    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn prepare_read(
        subrequest: *mut bindings::netfs_io_subrequest,
        size: u64,
    ) -> bindings::netfs_io_source {
        // SAFETY: The caller's subrequest is ours during the call.
        let subrequest = unsafe { &mut *subrequest };
        // SAFETY: A subrequest holds its request, whose operation on the cache has begun.
        let resources =
            unsafe { CacheResources::from_raw(&mut (*subrequest.rreq).cache_resources) };
        let source = match (resources.object::<O::Backend>(), resources.file()) {
            (Some(object), Some(_)) => {
                O::prepare_read(object, subrequest.start, subrequest.len, size)
            }
            _ => return bindings::netfs_io_source_NETFS_DOWNLOAD_FROM_SERVER,
        };
        match source {
            Source::Zeroes => bindings::netfs_io_source_NETFS_FILL_WITH_ZEROES,
            Source::Cache(len) => {
                subrequest.len = len;
                bindings::netfs_io_source_NETFS_READ_FROM_CACHE
            }
            Source::Server(len) => {
                subrequest.len = len;
                bindings::netfs_io_source_NETFS_DOWNLOAD_FROM_SERVER
            }
        }
    }

    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn query_occupancy(
        resources: *mut bindings::netfs_cache_resources,
        start: bindings::loff_t,
        len: usize,
        granularity: usize,
        data_start: *mut bindings::loff_t,
        data_len: *mut usize,
    ) -> c_int {
        // SAFETY: The operation has begun; the caller leaves its resources to us.
        let resources = unsafe { CacheResources::from_raw(resources) };
        let occupancy = match (
            resources.object::<O::Backend>(),
            resources.file(),
            u64::try_from(start),
        ) {
            (Some(object), Some(_), Ok(start)) => {
                O::query_occupancy(object, start, len, granularity)
            }
            _ => Err(Error::from_errno(ENOBUFS)),
        };
        let (at, bytes, ret) = match occupancy {
            Ok((at, bytes)) => (i64::try_from(at).unwrap_or(-1), bytes, 0),
            Err(error) => (-1, 0, error.to_errno()),
        };
        // SAFETY: The caller's places are valid for writes.
        unsafe { data_start.write(at) };
        // SAFETY: As above.
        unsafe { data_len.write(bytes) };
        ret
    }

    // Nothing is stored on behalf of a netfs: this backend is filled by its daemon.

    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn write(
        resources: *mut bindings::netfs_cache_resources,
        _start: bindings::loff_t,
        _iter: *mut bindings::iov_iter,
        function: bindings::netfs_io_terminated_t,
        private: *mut c_void,
    ) -> c_int {
        // SAFETY: The operation has begun; the caller leaves its resources to us.
        let resources = unsafe { CacheResources::from_raw(resources) };
        Termination::new(resources, function, private).end(ENOBUFS as isize, false);
        ENOBUFS
    }

    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn issue_write(subrequest: *mut bindings::netfs_io_subrequest) {
        // It is of that type too, whose form differs between kernels.
        let end: bindings::netfs_io_terminated_t =
            Some(bindings::netfs_write_subrequest_terminated);
        if let Some(end) = end {
            // SAFETY: The caller gives the subrequest away to be ended.
            unsafe { end.call(subrequest.cast(), ENOBUFS as isize, false) }
        }
    }

    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn prepare_write_subreq(subrequest: *mut bindings::netfs_io_subrequest) {
        // SAFETY: The caller's subrequest is ours during the call.
        unsafe { bindings::netfs_prepare_write_failed(subrequest) }
    }

    /// # Safety
    ///
    /// Called by a netfs alone, through the table, for an operation that has begun.
    unsafe extern "C" fn prepare_write(
        _resources: *mut bindings::netfs_cache_resources,
        _start: *mut bindings::loff_t,
        _len: *mut usize,
        _upper_len: usize,
        _size: bindings::loff_t,
        _no_space_allocated_yet: bool,
    ) -> c_int {
        ENOBUFS
    }
}
