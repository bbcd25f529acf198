// SPDX-License-Identifier: GPL-2.0

//! The end of a read, told once.
//!
//! C header: [`include/linux/netfs.h`](srctree/include/linux/netfs.h) (`netfs_io_terminated_t`)

use crate::bindings;
use crate::fscache::cookie::Cookie;
use crate::fscache::resources::CacheResources;
use kernel::ffi::c_void;

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
