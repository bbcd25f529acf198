// SPDX-License-Identifier: GPL-2.0

//! The counters that fscache shows in `/proc/fs/fscache/stats`. Nothing happens in a kernel
//! without CONFIG_FSCACHE_STATS.

use crate::bindings;

macro_rules! counters {
    ($($name:ident => $shim:ident, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub(crate) fn $name() {
                // SAFETY: Increments an atomic counter.
                unsafe { bindings::$shim() }
            }
        )*
    };
}

counters! {
    count_read => fscache_count_read, "A read of the store begins.";
    count_write => fscache_count_write, "A write to the store begins.";
    count_no_write_space => fscache_count_no_write_space, "A write was refused for want of space.";
    count_no_create_space => fscache_count_no_create_space, "A file was not made for want of space.";
    count_culled => fscache_count_culled, "An object was culled.";
    count_dio_misfit => fscache_count_dio_misfit, "A write was refused for its alignment.";
}
