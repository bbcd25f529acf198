// SPDX-License-Identifier: GPL-2.0

//! Generated bindings: what `kernel::bindings` lacks, and the C shims.
//!
//! The only place that includes generated code. `bindings.h` lists the headers, `Kbuild` the names.

#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    dead_code,
    improper_ctypes,
    unknown_lints,
    unnecessary_transmutes,
    reason = "generated code"
)]

// A name that is declared in one of these modules hides the same name of what the module takes in whole. So it
// does not matter which of them the kernel crate of a release has as well.
mod generated {
    pub(crate) use kernel::bindings::*;
    use kernel::ffi;
    include!("bindings_generated.rs");
}
mod shims {
    pub(crate) use super::generated::*;
    use kernel::ffi;
    include!("shims_generated.rs");
}
pub(crate) use shims::*;
