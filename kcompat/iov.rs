// SPDX-License-Identifier: GPL-2.0

//! Buffers of reads and writes, wherever they are: the destination of a read and the source of a write are two types.
//!
//! C header: [`include/linux/uio.h`](srctree/include/linux/uio.h)
//!
//! Upstream: `kernel::iov`, since 6.18; it copies, and pins no pages, which is what keeps this file.

use crate::bindings;
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The bytes that a write takes, from the front.
///
/// # Invariants
///
/// The pointer is to an iterator of direction `ITER_SOURCE` that is valid during `'a`, as are the bytes, and that nobody
/// else uses meanwhile.
pub(crate) struct SourceIter<'a> {
    iter: NonNull<bindings::iov_iter>,
    _lifetime: PhantomData<&'a mut bindings::iov_iter>,
}

impl SourceIter<'_> {
    /// # Safety
    ///
    /// `iter` is of direction `ITER_SOURCE`; it and its bytes are valid for the lifetime of the result, and nobody else
    /// uses the iterator meanwhile.
    pub(crate) unsafe fn from_raw(iter: NonNull<bindings::iov_iter>) -> Self {
        // INVARIANT: The caller promises it.
        SourceIter {
            iter,
            _lifetime: PhantomData,
        }
    }

    /// The C structure. It must not be used to write to the bytes.
    pub(crate) fn as_ptr(&mut self) -> *mut bindings::iov_iter {
        self.iter.as_ptr()
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: The iterator is valid by the type invariant.
        unsafe { bindings::iov_iter_count(self.iter.as_ptr()) }
    }

    /// Whether the bytes are in user space, so that a page fault may be needed to read them.
    pub(crate) fn is_user_backed(&self) -> bool {
        // SAFETY: The iterator is valid by the type invariant.
        unsafe { bindings::user_backed_iter(self.iter.as_ptr()) }
    }
}

/// The bytes that a read fills, from the front.
///
/// # Invariants
///
/// The pointer is to an iterator of direction `ITER_DEST` that is valid during `'a`, as are the bytes, and that nobody
/// else uses meanwhile.
pub(crate) struct DestIter<'a> {
    iter: NonNull<bindings::iov_iter>,
    _lifetime: PhantomData<&'a mut bindings::iov_iter>,
}

impl DestIter<'_> {
    /// # Safety
    ///
    /// `iter` is of direction `ITER_DEST`; it and its bytes are valid for the lifetime of the result, and nobody else
    /// uses the iterator meanwhile.
    pub(crate) unsafe fn from_raw(iter: NonNull<bindings::iov_iter>) -> Self {
        // INVARIANT: The caller promises it.
        DestIter {
            iter,
            _lifetime: PhantomData,
        }
    }

    /// The C structure.
    pub(crate) fn as_ptr(&mut self) -> *mut bindings::iov_iter {
        self.iter.as_ptr()
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: The iterator is valid by the type invariant.
        unsafe { bindings::iov_iter_count(self.iter.as_ptr()) }
    }

    /// Skips all bytes that are left.
    pub(crate) fn advance_to_end(&mut self) {
        let left = self.len();
        // SAFETY: The iterator is valid by the type invariant and has `left` bytes.
        unsafe { bindings::iov_iter_advance(self.as_ptr(), left) }
    }

    /// Fills all bytes that are left with zeros.
    pub(crate) fn zero_to_end(&mut self) {
        let left = self.len();
        // SAFETY: The iterator is valid by the type invariant and has `left` bytes, which may be written to.
        unsafe { bindings::iov_iter_zero(left, self.as_ptr()) };
    }
}

/// Memory of the kernel's heap as the source of a write, direct ones included.
pub(crate) struct KernelSource {
    buffer: KVec<u8>,
    vec: bindings::kvec,
    iter: Opaque<bindings::iov_iter>,
}

impl KernelSource {
    /// The bytes of `buffer`.
    pub(crate) fn new(buffer: KVec<u8>) -> Self {
        KernelSource {
            buffer,
            vec: bindings::kvec {
                iov_base: core::ptr::null_mut(),
                iov_len: 0,
            },
            iter: Opaque::uninit(),
        }
    }

    /// The iterator, from the first byte on.
    pub(crate) fn iter(&mut self) -> SourceIter<'_> {
        self.vec = bindings::kvec {
            iov_base: self.buffer.as_mut_ptr().cast(),
            iov_len: self.buffer.len(),
        };
        // SAFETY: `self.vec` describes the buffer; neither changes nor moves while the result borrows `self`.
        unsafe {
            bindings::iov_iter_kvec(
                self.iter.get(),
                bindings::ITER_SOURCE,
                &self.vec,
                1,
                self.vec.iov_len,
            )
        };
        // SAFETY: As above; the iterator was just initialised, as a source, and the result borrows `self`.
        unsafe { SourceIter::from_raw(NonNull::from(&mut self.iter).cast()) }
    }
}
