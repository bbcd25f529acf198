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

pub(crate) use kernel::bindings::*;

mod generated {
    include!("bindings_generated.rs");
}
pub(crate) use generated::*;
// The kernel crate knows these by name alone.
pub(crate) use generated::fiemap_extent_info;
pub(crate) use generated::fileattr;
pub(crate) use generated::kstatfs;

mod shims {
    use super::generated::*;
    include!("shims_generated.rs");
}
pub(crate) use shims::*;
