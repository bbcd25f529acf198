// SPDX-License-Identifier: GPL-2.0

//! What fscache calls: each callback passes to the module that does it.

use crate::cache::volume::Volume;
use crate::cache::Cache;
use crate::errno::Errno;
use crate::fscache::attachment::Attachment;
use crate::fscache::backend::Backend;
use crate::fscache::cookie::Cookie;
use crate::fscache::cookie::Flag;
use crate::fscache::resources::CacheResources;
use crate::fscache::volume::VolumeCookie;
use crate::io::CacheReads;
use crate::kcompat::print::ratelimit;
use crate::object::Object;
use kernel::prelude::*;
use kernel::str::BStr;
use kernel::sync::Arc;
use kernel::sync::ArcBorrow;

impl Backend for Cache {
    type Cache = Cache;
    type Volume = Volume;
    type Object = Object;
    type Operations = CacheReads;

    fn acquire_volume(
        cache: ArcBorrow<'_, Cache>,
        volume: &VolumeCookie,
        attachment: Attachment<Volume>,
    ) -> Result<Arc<Volume>> {
        Volume::acquire(cache.into(), volume, attachment).inspect_err(|error| {
            pr_err!("volume '{}': {:?}\n", BStr::from_bytes(volume.key()), error)
        })
    }

    fn lookup_cookie(volume: ArcBorrow<'_, Volume>, cookie: &Cookie) -> Result<Arc<Object>> {
        volume.cache().lookup(&volume, cookie).inspect_err(|error| {
            // A netfs that is not served was told of once, an object without a file by itself.
            if *error != Errno::EOPNOTSUPP.into() && ratelimit() {
                pr_err!("object '{}': {:?}\n", BStr::from_bytes(cookie.key()), error);
            }
        })
    }

    fn withdraw_cookie(object: Arc<Object>, _cookie: &Cookie) {
        object.finish();
    }

    fn invalidate_cookie(object: ArcBorrow<'_, Object>, cookie: &Cookie) -> Result {
        object.invalidate(cookie)
    }

    fn begin_operation(object: ArcBorrow<'_, Object>, resources: &mut CacheResources) {
        // Before the first opening the file may yet be replaced; whoever waits for the opening is
        // told then.
        if let Ok(current) = object.current() {
            if current.size.is_some() {
                resources.set_file(Some(current.file));
            }
        }
    }

    fn resize_cookie(object: ArcBorrow<'_, Object>, _cookie: &Cookie, size: i64) {
        if let Err(error) = object.resize(size) {
            pr_err!("{}: resizing to {} bytes: {:?}\n", &*object, size, error);
        }
    }

    fn prepare_to_write(_object: ArcBorrow<'_, Object>, cookie: &Cookie) {
        cookie.set_flag(Flag::NeedsUpdate, true);
    }
}
