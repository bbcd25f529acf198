// SPDX-License-Identifier: GPL-2.0

//! What a type is to implement, to be printed by `pr_err!` and the like.
//!
//! Upstream: `kernel::fmt`, a module since 6.17 (before, the name was only a macro's); its `Display` is another than
//! that of `core` since 6.19. This file can go when 6.16 is not built for.

/// Found where the kernel crate has no module of the name, since it is imported with all that is here.
mod before {
    #[allow(unused_imports, reason = "one of the two has the module")]
    pub(super) use core::fmt;
}

#[allow(unused_imports, reason = "one of the two has the module")]
use before::*;
#[allow(unused_imports, reason = "one of the two has the module")]
use kernel::fmt;

pub(crate) use self::fmt::Display;
pub(crate) use self::fmt::Formatter;
pub(crate) use self::fmt::Result;
