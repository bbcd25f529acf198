// SPDX-License-Identifier: GPL-2.0

//! An fscache cache backend whose data comes on demand from a daemon in user space.
//!
//! EROFS mounts an image through fscache, fscache asks this module, and this module asks the daemon
//! that holds `/dev/cachefiles`; the daemon may crash and be replaced while readers wait.
//!
//! The rooms, outermost first:
//!
//! - [`daemon`] is the device; [`backend`] is fscache's door.
//! - [`cache`], [`volume`] and [`object`] are what stands behind fscache's things of these names;
//!   [`namei`], [`xattr`], [`coherency`], [`identity`] and [`probe`] keep the store on disk; [`io`] reads and fills it;
//!   [`space`] and [`culling`] keep it from filling the disk.
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
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
mod coherency;
mod contents;
mod culling;
mod daemon;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
mod errno;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
mod ext4;
mod fscache;
mod holes;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
mod identity;
mod io;
mod kcompat;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
mod key;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
mod limits;
mod namei;
mod object;
mod ondemand;
#[allow(
    unreachable_pub,
    dead_code,
    reason = "pure files are shared with user/core"
)]
mod present;
mod probe;
mod setup;
mod space;
mod stop_points;
mod vfs;
mod volume;
mod xattr;

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
        if vfs::path::misc_device_exists(name)? {
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
            let stops = device.stops().clone();
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
