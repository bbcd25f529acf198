// SPDX-License-Identifier: GPL-2.0

//! An fscache cache backend whose data comes on demand from a daemon in user space.
//!
//! EROFS mounts an image through fscache, fscache asks this module, and this module asks the daemon
//! that holds `/dev/cachefiles`; the daemon may crash and be replaced while readers wait.
//!
//! The modules, top down:
//!
//! - [`daemon`] is the device; [`backend`] is what fscache calls.
//! - [`cache`] is one bound cache with its volumes, [`object`] what stands behind a cookie; [`io`] reads and
//!   fills objects.
//! - [`store`] is the cache directory: the format on disk, what its files hold, how full the disk is.
//! - [`ondemand`] is the protocol: the pure request table and what carries it out.
//! - [`fscache`], [`vfs`] and [`kcompat`] are safe abstractions over the kernel, and hold all of the
//!   module's `unsafe`; [`bindings`] is generated.
//!
//! `docs/architecture.md` tells why it is built so.

use kernel::prelude::*;

mod abi;
mod backend;
mod bindings;
mod cache;
mod daemon;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
mod errno;
mod fscache;
mod io;
mod kcompat;
mod object;
mod ondemand;
mod stop_points;
mod store;
mod vfs;

use daemon::CachefilesDevice;
use daemon::Device;
use kcompat::miscdevice::MiscDeviceRegistration;

module! {
    type: CachefilesOndemand,
    name: "cachefiles_ondemand",
    description: "fscache cache backend with on-demand reading and daemon failover",
    license: "GPL",
}

/// The loaded module.
struct CachefilesOndemand {
    #[cfg(ondemand_stop_points)]
    _stop_points: Pin<KBox<MiscDeviceRegistration<stop_points::control::StopDevice>>>,
    _device: Pin<KBox<MiscDeviceRegistration<CachefilesDevice>>>,
}

impl kernel::Module for CachefilesOndemand {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let name = kcompat::module_param::device_name();
        if kcompat::miscdevice::misc_device_exists(name)? {
            pr_err!(
                "a device '{}' exists: unload the module that has it (cachefiles?), or load this one with device_name=OTHER\n",
                name
            );
            return Err(EBUSY);
        }
        let device = Device::new()?;
        #[cfg(ondemand_stop_points)]
        let _stop_points = {
            let name = kernel::c_str!("cachefiles_stop_points");
            let stops = device.stops().control().clone();
            KBox::pin_init(MiscDeviceRegistration::register(name, stops), GFP_KERNEL)?
        };
        let registration = MiscDeviceRegistration::register(name, device);
        let _device = KBox::pin_init(registration, GFP_KERNEL)?;
        pr_info!("loaded, device /dev/{}\n", name);
        Ok(CachefilesOndemand {
            #[cfg(ondemand_stop_points)]
            _stop_points,
            _device,
        })
    }
}

impl Drop for CachefilesOndemand {
    fn drop(&mut self) {
        // No file is open, and none can be opened: the module is going. What is left of it belongs to who is in it.
        fscache::wait_for_callers();
        pr_info!("unloaded\n");
    }
}
