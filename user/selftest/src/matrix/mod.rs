// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemand-matrix`: a store on each file system, with each kind of fill, on the disk that the machine has.
//!
//! | module | what it is |
//! |---|---|
//! | [`variants`] | file systems, as they are made and mounted |
//! | [`disk`] | a disk that fails when it is told to |
//! | [`cell`] | what is done with one of them |

pub mod cell;
pub mod disk;
pub mod variants;
