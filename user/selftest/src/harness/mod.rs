// SPDX-License-Identifier: MIT OR Apache-2.0

//! What every test is built from.

pub mod check;
pub mod context;
pub mod daemon;
pub mod descriptors;
pub mod disk;
pub mod helper;
pub mod image;
pub mod kmsg;
pub mod known;
pub mod mock;
pub mod procfs;
pub mod raw;
pub mod runner;
mod serving;
pub mod stops;
pub mod store;
pub mod supervisor;
pub mod task;
pub mod wait;

pub use check::errno_of;
pub use check::expect_errno;
pub use check::same;
pub use check::skip;
pub use check::Skip;
pub use check::MOUNT_FAILS;
pub use context::drop_caches;
pub use context::Context;
pub use daemon::Daemon;
pub use daemon::Event;
pub use descriptors::without_descriptors;
pub use disk::SmallDisk;
pub use image::Image;
pub use image::Images;
pub use mock::Mock;
pub use mock::Stage;
pub use stops::Aside;
pub use stops::Fetch;
pub use stops::Stops;
pub use supervisor::Death;
pub use supervisor::Supervisor;
pub use task::Outcome;
pub use task::Task;
pub use wait::eventually;
pub use wait::SOON;

use std::time::Duration;

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// What it is called; one of a known defect begins with the defect's id.
    pub name: &'static str,
    /// What it would have caught.
    pub about: &'static str,
    /// The test itself, run in a process of its own.
    pub run: fn(&Context) -> anyhow::Result<()>,
    /// After this, on the reference machine, its process is killed, with everything that it started.
    pub deadline: Duration,
}

impl Test {
    /// A test with the usual deadline, which is ten times what the slowest one needs.
    #[must_use]
    pub const fn new(
        name: &'static str,
        about: &'static str,
        run: fn(&Context) -> anyhow::Result<()>,
    ) -> Self {
        Test {
            name,
            about,
            run,
            deadline: Duration::from_secs(60),
        }
    }

    /// The same test with another deadline, in seconds.
    #[must_use]
    pub const fn within(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }
}
