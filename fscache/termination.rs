// SPDX-License-Identifier: GPL-2.0

//! The end of a read, told once.
//!
//! C header: [`include/linux/netfs.h`](srctree/include/linux/netfs.h) (`netfs_io_terminated_t`)

use crate::bindings;
use crate::fscache::cookie::Cookie;
use crate::fscache::resources::CacheResources;
use crate::kcompat::iov::DestIter;
use kernel::ffi::c_void;
use kernel::prelude::*;

/// The netfs's callback for one read. It is called once: by one of the `end`s, or with `EIO` when
/// this is dropped.
pub(crate) struct Termination {
    function: bindings::netfs_io_terminated_t,
    private: *mut c_void,
    cookie: *mut bindings::fscache_cookie,
    inval_counter: u32,
}

/// The type of such callbacks, `netfs_io_terminated_t`: up to 6.15 they are told whether the caller is another context
/// than the submitter's.
pub(super) trait Callback {
    /// # Safety
    ///
    /// As the function says.
    unsafe fn call(self, private: *mut c_void, ret: isize, was_async: bool);
}

impl Callback for unsafe extern "C" fn(*mut c_void, isize, bool) {
    unsafe fn call(self, private: *mut c_void, ret: isize, was_async: bool) {
        // SAFETY: As the caller promises.
        unsafe { self(private, ret, was_async) }
    }
}

impl Callback for unsafe extern "C" fn(*mut c_void, isize) {
    unsafe fn call(self, private: *mut c_void, ret: isize, _was_async: bool) {
        // SAFETY: As the caller promises.
        unsafe { self(private, ret) }
    }
}

impl Termination {
    pub(super) fn new(
        resources: &CacheResources,
        function: bindings::netfs_io_terminated_t,
        private: *mut c_void,
    ) -> Self {
        Termination {
            function,
            private,
            cookie: resources.cookie().as_ptr(),
            inval_counter: resources.inval_counter(),
        }
    }

    /// Ends a read of `len` bytes that came to `ret` bytes or a negative error number. Data of an
    /// object that was invalidated meanwhile, and a short read, are errors. May be called in
    /// interrupt context; the operation may be over when this returns.
    pub(crate) fn end_read(self, ret: isize, len: usize, was_async: bool) {
        // SAFETY: The operation's access keeps the cookie until the callback ends it.
        let cookie = unsafe { Cookie::from_raw(self.cookie) };
        let ret = match usize::try_from(ret) {
            Err(_) => ret,
            Ok(_) if cookie.inval_counter() != self.inval_counter => -(bindings::ESTALE as isize),
            Ok(bytes) if bytes < len => -(bindings::EIO as isize),
            Ok(_) => ret,
        };
        self.end(ret, was_async);
    }

    /// Ends the read with bytes or a negative error number.
    pub(crate) fn end(mut self, ret: isize, was_async: bool) {
        self.call(ret, was_async);
    }

    fn call(&mut self, ret: isize, was_async: bool) {
        if let Some(function) = self.function.take() {
            // SAFETY: The netfs passes the two together; this is the only call.
            unsafe { function.call(self.private, ret, was_async) }
        }
    }
}

impl Drop for Termination {
    fn drop(&mut self) {
        self.call(-(bindings::EIO as isize), false);
    }
}

/// A read that a netfs has asked for: where its bytes go, and who is told when they are there.
///
/// # Invariants
///
/// The iterator is valid during `'a`, the buffer that it describes until the termination is called: it is the netfs that
/// frees it, in its callback.
pub(crate) struct PendingRead<'a> {
    iter: DestIter<'a>,
    termination: Termination,
}

impl<'a> PendingRead<'a> {
    /// # Safety
    ///
    /// The buffer that `iter` describes is valid until `termination` is called.
    pub(super) unsafe fn new(iter: DestIter<'a>, termination: Termination) -> Self {
        // INVARIANT: The caller promises it.
        PendingRead { iter, termination }
    }

    /// Bytes that are wanted.
    pub(crate) fn len(&self) -> usize {
        self.iter.len()
    }

    /// Fills the buffer with zeros and ends the read with an error.
    pub(crate) fn fail(mut self, error: Error) {
        self.iter.zero_to_end();
        self.termination.end(error.to_errno() as isize, false);
    }

    /// Both.
    ///
    /// # Safety
    ///
    /// Nothing is written to the buffer once the termination was called.
    pub(crate) unsafe fn into_parts(self) -> (DestIter<'a>, Termination) {
        (self.iter, self.termination)
    }
}
