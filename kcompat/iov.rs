// SPDX-License-Identifier: GPL-2.0

//! Buffers of reads and writes, wherever they lie.
//!
//! C header: [`include/linux/uio.h`](srctree/include/linux/uio.h)
//!
//! Upstream: `kernel::iov`, since 6.18; it copies, and pins no pages, which is what keeps this file.

use crate::bindings;
use core::marker::PhantomData;
use kernel::types::Opaque;

/// A buffer that is consumed from the front: filled by a read, emptied by a write.
///
/// # Invariants
///
/// The inner iterator is valid and used by nobody else meanwhile.
#[repr(transparent)]
pub(crate) struct IovIter {
    inner: Opaque<bindings::iov_iter>,
}

impl IovIter {
    /// # Safety
    ///
    /// `iter` is valid for `'a` and used by nobody else meanwhile.
    pub(crate) unsafe fn from_raw<'a>(iter: *mut bindings::iov_iter) -> &'a mut Self {
        // SAFETY: The type is transparent, the rest is promised by the caller.
        unsafe { &mut *iter.cast() }
    }

    /// The C structure.
    pub(crate) fn as_ptr(&mut self) -> *mut bindings::iov_iter {
        self.inner.get()
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: The iterator is valid by the type invariant.
        unsafe { bindings::iov_iter_count(self.inner.get()) }
    }

    /// Whether the buffer is user space's, and may have to be brought into memory.
    pub(crate) fn is_user_backed(&self) -> bool {
        // SAFETY: The iterator is valid by the type invariant.
        unsafe { bindings::user_backed_iter(self.inner.get()) }
    }

    /// Passes over all that is left.
    pub(crate) fn advance_to_end(&mut self) {
        let left = self.len();
        // SAFETY: The iterator is valid by the type invariant and has `left` bytes.
        unsafe { bindings::iov_iter_advance(self.as_ptr(), left) }
    }

    /// Fills all that is left with zeros.
    pub(crate) fn zero_to_end(&mut self) {
        let left = self.len();
        // SAFETY: The iterator is valid by the type invariant and has `left` bytes.
        unsafe { bindings::iov_iter_zero(left, self.as_ptr()) };
    }
}

/// An [`IovIter`] over one buffer of the kernel, as the source of a write.
pub(crate) struct KernelSource<'a> {
    iter: Opaque<bindings::iov_iter>,
    vec: bindings::kvec,
    _buffer: PhantomData<&'a [u8]>,
}

impl<'a> KernelSource<'a> {
    /// An iterator over `buffer`, which must not lie on the stack if the write is direct.
    pub(crate) fn new(buffer: &'a [u8]) -> Self {
        KernelSource {
            iter: Opaque::uninit(),
            vec: bindings::kvec {
                iov_base: buffer.as_ptr().cast_mut().cast(),
                iov_len: buffer.len(),
            },
            _buffer: PhantomData,
        }
    }

    /// The iterator, from the buffer's start.
    pub(crate) fn iter(&mut self) -> &mut IovIter {
        // SAFETY: `self.vec` describes a buffer that is borrowed as long as `self` exists, and it
        // does not move while the result borrows `self`.
        unsafe {
            bindings::iov_iter_kvec(
                self.iter.get(),
                bindings::ITER_SOURCE,
                &self.vec,
                1,
                self.vec.iov_len,
            )
        };
        // SAFETY: The iterator was just initialised; the result borrows `self` mutably.
        unsafe { IovIter::from_raw(self.iter.get()) }
    }
}
