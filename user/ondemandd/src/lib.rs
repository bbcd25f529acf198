// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd` serves the blobs of a directory to the kernel's `/dev/cachefiles`.
//!
//! Two processes share the work, so that a crash of the one that does it costs nobody anything:
//!
//! ```text
//!          keeper                                   worker (N threads)
//!          opens the device, binds the cache        gets the device over a socket
//!          starts a worker, waits for its end       [after a death: writes `restore`]
//!          starts the next one                      answers OPEN, READ, CLOSE
//!               |                                        |
//!               +--- /dev/cachefiles, one open file -----+
//! ```
//!
//! The kernel keeps the cache, and every reader that waits for data, as long as the device is
//! open somewhere. Anonymous files belong to the worker and go with it; the kernel then asks the
//! next worker to open the objects again.
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | arguments |
//! | [`config`] | the configuration of `serve` |
//! | [`logging`] | the log of all processes |
//! | [`keeper`] | the parent: device, processes, signals |
//! | [`limits`] | how full the cache may become |
//! | `cull` | the keeper's thread that makes room |
//! | [`evict`] | what is to go of single objects |
//! | `graveyard` | what the kernel leaves to be deleted |
//! | [`takeover`] | the keeper's state machine, without any system call |
//! | [`handover`] | the socket between the two: descriptors there, "ready" back |
//! | [`worker`] | the child: start and threads |
//! | [`sandbox`] | what the worker gives up |
//! | [`server`] | what is done with a message |
//! | [`patience`] | how long a fill waits for space |
//! | [`objects`] | what is open |
//! | [`manifest`] | digests of a blob's chunks |
//! | [`source`] | where blobs come from |
//! | [`pool`] | threads that wait for remote sources |
//! | [`block`] | memory for direct I/O |
//! | [`record`] | which version each object was opened with |
//! | [`counters`] | numbers in memory that outlives the worker |
//! | [`control`] | what the keeper can be asked, over a socket |
//! | `clients` | sockets that the keeper serves |
//! | [`systemd`] | what systemd is told and keeps |
//! | [`rundir`] | pid files, control socket and `stats.json` |
//! | [`report`] | all numbers in one place |
//! | [`metrics`] | the same for Prometheus |
//! | [`stats`] | `ondemandd stats` |
//! | [`latency`] | how long requests take |
//! | [`status`] | `ondemandd status` |
//! | [`top`] | `ondemandd top` |
//! | [`upgrade`] | `ondemandd upgrade` |
//! | `images` | how much the cache holds of what is mounted |
//! | [`mount`] | `ondemandd mount` and `umount` |
//! | [`mounted`] | what the kernel says is mounted |
//! | [`prefetch`] | `ondemandd prefetch` |
//! | [`scrub`] | `ondemandd scrub` |
//! | [`doctor`] | `ondemandd doctor` |
//! | [`generate`] | man pages and completions |

pub mod block;
mod child;
pub mod cli;
mod clients;
pub mod config;
pub mod control;
pub mod counters;
mod cull;
pub mod doctor;
pub mod evict;
pub mod generate;
mod graveyard;
pub mod handover;
mod images;
pub mod keeper;
pub mod latency;
pub mod limits;
pub mod logging;
pub mod manifest;
pub mod metrics;
pub mod mount;
pub mod mounted;
pub mod objects;
pub mod patience;
pub mod pool;
pub mod prefetch;
pub mod record;
pub mod report;
pub mod rundir;
pub mod sandbox;
pub mod scrub;
pub mod server;
mod signals;
pub mod source;
pub mod stats;
pub mod status;
pub mod systemd;
pub mod takeover;
pub mod top;
pub mod upgrade;
pub mod worker;
