// SPDX-License-Identifier: GPL-2.0

//! Misc devices whose files are read, written and polled.
//!
//! C headers: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! Upstream: `kernel::miscdevice`, since 6.13, with reads and writes in 6.18; it has no `poll`, not in 7.1 either, which
//! is what keeps this file.

use crate::bindings;
use crate::kcompat::fs::File;
use crate::kcompat::poll::PollTable;
use crate::kcompat::str::to_bytes;
use crate::kcompat::types::into_foreign;
use crate::kcompat::uaccess;
use core::marker::PhantomData;
use kernel::container_of;
use kernel::ffi::c_char;
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::types::ForeignOwnable;
use kernel::types::Opaque;
use kernel::uaccess::UserPtr;
use kernel::uaccess::UserSlice;
use kernel::uaccess::UserSliceReader;

/// What a device does. Every method runs in the calling task and may sleep.
pub(crate) trait MiscDevice: Sized + 'static {
    /// What belongs to the device itself, shared by all its files.
    type Data: Sync + 'static;
    /// What belongs to one open file.
    type Ptr: ForeignOwnable + Send + Sync;

    /// `open(2)`.
    fn open(data: &'static Self::Data) -> Result<Self::Ptr>;
    /// The file's last reference is gone.
    fn release(file: Self::Ptr);
    /// `read(2)` of at most `len` bytes to `buffer`, an address of the calling task; tells the
    /// bytes written.
    fn read(
        file: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        buffer: UserPtr,
        len: usize,
    ) -> Result<usize>;
    /// `write(2)` of all of `buffer`.
    fn write(
        file: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        buffer: UserSliceReader,
    ) -> Result<usize>;
    /// `poll(2)`: registers what is to be watched and tells the `EPOLL*` bits that hold now.
    fn poll<'a>(file: <Self::Ptr as ForeignOwnable>::Borrowed<'a>, table: &PollTable<'a>) -> u32;
}

/// A registered device; it is gone when this is dropped.
///
/// The module's files keep the module loaded, so that none is open by then.
#[pin_data(PinnedDrop)]
pub(crate) struct MiscDeviceRegistration<T: MiscDevice> {
    data: T::Data,
    #[pin]
    inner: Opaque<bindings::miscdevice>,
    registered: (),
    _device: PhantomData<T>,
}

// SAFETY: A misc device may be deregistered from any thread.
unsafe impl<T: MiscDevice> Send for MiscDeviceRegistration<T> where T::Data: Send {}
// SAFETY: Nothing is done through a shared reference but reading `data`.
unsafe impl<T: MiscDevice> Sync for MiscDeviceRegistration<T> {}

impl<T: MiscDevice> MiscDeviceRegistration<T> {
    /// Registers the device `/dev/NAME`.
    ///
    /// # Errors
    ///
    /// Those of `misc_register`. A name that is taken must be found out before: the registration
    /// would fail with `EEXIST`, and sysfs would print a stack.
    pub(crate) fn register(name: &'static CStr, data: T::Data) -> impl PinInit<Self, Error> {
        let device = bindings::miscdevice {
            minor: bindings::MISC_MINOR,
            name: name.as_char_ptr(),
            fops: &Operations::<T>::TABLE,
            ..Default::default()
        };
        try_pin_init!(&this in Self {
            data,
            inner: Opaque::new(device),
            // Last: from here on files are opened.
            // SAFETY: The device was initialised above, is pinned, and deregistered before it is freed; a failed
            // `misc_register` leaves nothing behind.
            registered: kernel::error::to_result(unsafe {
                bindings::misc_register(core::ptr::addr_of_mut!((*this.as_ptr()).inner).cast())
            })?,
            _device: PhantomData,
        })
    }
}

#[pinned_drop]
impl<T: MiscDevice> PinnedDrop for MiscDeviceRegistration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The device is registered as long as `self` exists.
        unsafe { bindings::misc_deregister(self.inner.get()) }
    }
}

struct Operations<T>(PhantomData<T>);

impl<T: MiscDevice> Operations<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: crate::THIS_MODULE.as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        read: Some(Self::read),
        write: Some(Self::write),
        poll: Some(Self::poll),
        llseek: Some(bindings::noop_llseek),
        ..ZERO
    };

    /// # Safety
    ///
    /// Called by the VFS alone, through the table, for a file of this device.
    unsafe extern "C" fn open(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `misc_open` has put the device into `private_data`.
        let device = unsafe { (*file).private_data }.cast::<Opaque<bindings::miscdevice>>();
        // SAFETY: Only a registration uses this table, and its device is the field `inner`.
        let registration = unsafe { container_of!(device, MiscDeviceRegistration<T>, inner) };
        // SAFETY: The registration lives as long as the module, which an open file pins.
        let data = unsafe { &(*registration).data };
        match T::open(data) {
            Ok(private) => {
                // SAFETY: The file is ours until `open` returns.
                unsafe { (*file).private_data = into_foreign(private) };
                0
            }
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS alone, through the table, for a file of this device.
    unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open` has put a foreign `T::Ptr` there, and nobody uses the file any more.
        T::release(unsafe { T::Ptr::from_foreign((*file).private_data) });
        0
    }

    /// # Safety
    ///
    /// Called by the VFS alone, through the table, for a file of this device.
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buffer: *mut c_char,
        len: usize,
        _: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: `open` has put a foreign `T::Ptr` there, which stays until `release`.
        let private = unsafe { T::Ptr::borrow((*file).private_data) };
        returned(T::read(private, uaccess::from_argument(buffer), len))
    }

    /// # Safety
    ///
    /// Called by the VFS alone, through the table, for a file of this device.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buffer: *const c_char,
        len: usize,
        _: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: As in `read`.
        let private = unsafe { T::Ptr::borrow((*file).private_data) };
        let buffer = UserSlice::new(uaccess::from_argument(buffer), len).reader();
        returned(T::write(private, buffer))
    }

    /// # Safety
    ///
    /// Called by the VFS alone, through the table, for a file of this device.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: As in `read`.
        let private = unsafe { T::Ptr::borrow((*file).private_data) };
        // SAFETY: The caller's file is live for the call.
        let file = unsafe { File::from_raw(file) };
        // SAFETY: The caller's table is null or valid for the call; `release` drops the private data.
        let table = unsafe { PollTable::from_raw(file, table) };
        T::poll(private, &table)
    }
}

/// An operations table without operations.
// SAFETY: All zeros is a valid table: null pointers and absent functions.
pub(crate) const ZERO: bindings::file_operations = unsafe { core::mem::zeroed() };

/// Bytes or an error, as a system call returns them.
pub(crate) fn returned(result: Result<usize>) -> isize {
    match result {
        Ok(bytes) => isize::try_from(bytes).unwrap_or(isize::MAX),
        Err(error) => error.to_errno() as isize,
    }
}

/// Whether a misc device of this name is registered, as sysfs shows it. Where sysfs is not mounted
/// on `/sys` the answer is no.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn misc_device_exists(name: &CStr) -> Result<bool> {
    let mut entry = KVec::new();
    for part in [b"/sys/class/misc/", to_bytes(name), b"\0"] {
        entry.extend_from_slice(part, GFP_KERNEL)?;
    }
    let mut path = bindings::path::default();
    // SAFETY: `entry` is a string and `path` is valid for writes.
    if unsafe { bindings::kern_path(entry.as_ptr().cast(), 0, &mut path) } != 0 {
        return Ok(false);
    }
    // SAFETY: On success the path comes with references.
    unsafe { bindings::path_put(&path) };
    Ok(true)
}
