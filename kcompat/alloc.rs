// SPDX-License-Identifier: GPL-2.0

//! Memory that is zeroed as it is allocated.
//!
//! Upstream: `pin_init::init_zeroed`, since 6.17, for `KBox::init`. This file can go when 6.16 is not built for.

use kernel::prelude::*;

/// A box of zeros.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn zeroed<const N: usize>() -> Result<KBox<[u64; N]>> {
    let numbers = KBox::<[u64; N]>::new_uninit(GFP_KERNEL | __GFP_ZERO)?;
    // SAFETY: The memory is zeroed, and zeros are numbers.
    Ok(unsafe { numbers.assume_init() })
}
