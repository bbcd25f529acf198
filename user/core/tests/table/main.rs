// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the request table, in one program: one link instead of seven.

mod deadlines;
mod defects;
mod ends;
mod events;
mod mutants;
mod protocol;
mod random;
mod restore;
mod story;
