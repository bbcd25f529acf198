// SPDX-License-Identifier: GPL-2.0

//! The time of day, and the kernel's ticks.
//!
//! C headers: [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h),
//! [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)
//!
//! Upstream: `kernel::time::Instant` has several clocks in 6.18; nothing tells its seconds since 1970.

use crate::bindings;

/// Seconds since 1970, modulo 2^32: for names that should differ from one boot to the next.
pub(crate) fn real_seconds() -> u32 {
    // SAFETY: Reads the clock.
    let [a, b, c, d, ..] = unsafe { bindings::ktime_get_real_seconds() }.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Ticks since shortly before the boot; they do not wrap, and stand still during a suspend.
pub(crate) fn jiffies() -> u64 {
    // SAFETY: Reads a counter.
    unsafe { bindings::get_jiffies_64() }
}

/// So many seconds in ticks.
pub(crate) fn seconds_in_jiffies(seconds: u32) -> u64 {
    u64::from(seconds) * u64::from(bindings::TICKS_A_SECOND)
}
