// SPDX-License-Identifier: GPL-2.0

//! The time of day.
//!
//! C header: [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h)

use crate::bindings;

/// Seconds since 1970, modulo 2^32: for names that should differ from one boot to the next.
pub(crate) fn real_seconds() -> u32 {
    // SAFETY: Reads the clock.
    let [a, b, c, d, ..] = unsafe { bindings::ktime_get_real_seconds() }.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
