// SPDX-License-Identifier: MIT OR Apache-2.0

//! How full the cache's file system may become: six marks, and in which order the kernel is told.
//!
//! The kernel watches the free blocks and the free files of the cache's file system, and has three
//! marks on each, in percent of the whole. Below *cull* it asks for culling (`EPOLLOUT`), at *run*
//! that ends, and below *stop* nothing new is stored.

use anyhow::ensure;
use cachefiles_proto::Command;
use cachefiles_proto::Limit;
use clap::Args;
use rustix::fs::StatVfs;
use serde::Deserialize;
use serde::Serialize;

/// The six marks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Limits {
    /// Culling ends when this much of the blocks is free again.
    pub brun: u8,
    /// Culling begins when less than this of the blocks is free.
    pub bcull: u8,
    /// Nothing more is stored when less than this of the blocks is free.
    pub bstop: u8,
    /// As `brun`, of the files.
    pub frun: u8,
    /// As `bcull`, of the files.
    pub fcull: u8,
    /// As `bstop`, of the files.
    pub fstop: u8,
}

/// The six marks, as `serve` and the table `[limits]` of its configuration take them.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize)]
#[command(next_help_heading = "Limits of the cache's file system, in percent of the whole")]
#[serde(deny_unknown_fields, default)]
pub struct LimitArgs {
    /// Culling ends when this much of the blocks is free again [default: 7].
    ///
    /// The order is 0 <= stop < cull < run < 100, of blocks and of files.
    #[arg(long, value_name = "N", value_parser = percent())]
    pub brun: Option<u8>,

    /// Culling begins when less than this of the blocks is free: images that are not mounted go, the
    /// longest unused first [default: 5].
    #[arg(long, value_name = "N", value_parser = percent())]
    pub bcull: Option<u8>,

    /// Nothing more is stored when less than this of the blocks is free: reads of what the cache
    /// does not have get EIO [default: 1].
    #[arg(long, value_name = "N", value_parser = percent())]
    pub bstop: Option<u8>,

    /// As --brun, of the files (inodes).
    #[arg(long, value_name = "N", value_parser = percent())]
    pub frun: Option<u8>,

    /// As --bcull, of the files (inodes).
    #[arg(long, value_name = "N", value_parser = percent())]
    pub fcull: Option<u8>,

    /// As --bstop, of the files (inodes): nothing more is mounted that the cache does not have.
    #[arg(long, value_name = "N", value_parser = percent())]
    pub fstop: Option<u8>,
}

impl LimitArgs {
    /// These marks, those of `other` where these say nothing, and the kernel's where neither does.
    #[must_use]
    pub fn or(&self, other: &LimitArgs) -> Limits {
        let Marks { run, cull, stop } = Marks::DEFAULT;
        Limits {
            brun: self.brun.or(other.brun).unwrap_or(run),
            bcull: self.bcull.or(other.bcull).unwrap_or(cull),
            bstop: self.bstop.or(other.bstop).unwrap_or(stop),
            frun: self.frun.or(other.frun).unwrap_or(run),
            fcull: self.fcull.or(other.fcull).unwrap_or(cull),
            fstop: self.fstop.or(other.fstop).unwrap_or(stop),
        }
    }
}

/// The marks of one resource, in percent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Marks {
    /// Culling ends at this.
    pub run: u8,
    /// Culling begins below this.
    pub cull: u8,
    /// Nothing is stored below this.
    pub stop: u8,
}

/// Which of the marks of a resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// See [`Marks::run`].
    Run,
    /// See [`Marks::cull`].
    Cull,
    /// See [`Marks::stop`].
    Stop,
}

/// What is free, at one moment or in an estimate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Free {
    /// Blocks, in units of the file system.
    pub blocks: u64,
    /// Inodes.
    pub files: u64,
}

fn percent() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..=99)
}

impl Limits {
    /// Refuses marks that are not in order.
    ///
    /// # Errors
    ///
    /// The two options that contradict each other.
    pub fn check(&self) -> anyhow::Result<()> {
        for (letter, marks) in [('b', self.blocks()), ('f', self.files())] {
            let Marks { run, cull, stop } = marks;
            ensure!(
                cull < run,
                "--{letter}cull {cull} must be less than --{letter}run {run}"
            );
            ensure!(
                stop < cull,
                "--{letter}stop {stop} must be less than --{letter}cull {cull}"
            );
            ensure!(run < 100, "--{letter}run {run} must be less than 100");
        }
        Ok(())
    }

    fn blocks(&self) -> Marks {
        Marks {
            run: self.brun,
            cull: self.bcull,
            stop: self.bstop,
        }
    }

    fn files(&self) -> Marks {
        Marks {
            run: self.frun,
            cull: self.fcull,
            stop: self.fstop,
        }
    }

    /// What to write to a new device for these limits, in order.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        let blocks = Marks::DEFAULT.moves_to(self.blocks()).into_iter();
        let files = Marks::DEFAULT.moves_to(self.files()).into_iter();
        let of_blocks = |(mark, percent)| Command::Limit {
            limit: match mark {
                Mark::Run => Limit::BlocksRun,
                Mark::Cull => Limit::BlocksCull,
                Mark::Stop => Limit::BlocksStop,
            },
            percent,
        };
        let of_files = |(mark, percent)| Command::Limit {
            limit: match mark {
                Mark::Run => Limit::FilesRun,
                Mark::Cull => Limit::FilesCull,
                Mark::Stop => Limit::FilesStop,
            },
            percent,
        };
        blocks.map(of_blocks).chain(files.map(of_files)).collect()
    }

    /// Whether culling may end with this much free, on a file system of which `stat` tells the size.
    ///
    /// It is computed as the kernel does: a hundredth is rounded down first.
    #[must_use]
    pub fn are_met(&self, stat: &StatVfs, free: Free) -> bool {
        let mark = |total: u64, percent: u8| (total / 100).saturating_mul(u64::from(percent));
        free.blocks >= mark(stat.f_blocks, self.brun) && free.files >= mark(stat.f_files, self.frun)
    }
}

impl Marks {
    /// What the kernel begins with.
    pub const DEFAULT: Marks = Marks {
        run: 7,
        cull: 5,
        stop: 1,
    };

    /// The moves, one mark each, that lead from these marks to others without breaking the order on
    /// the way. Both must be in order.
    ///
    /// First the outer marks make room, then *cull* moves, then the outer ones follow.
    #[must_use]
    pub fn moves_to(self, to: Marks) -> Vec<(Mark, u8)> {
        let moves = [
            (to.run > self.run, Mark::Run, to.run),
            (to.stop < self.stop, Mark::Stop, to.stop),
            (to.cull != self.cull, Mark::Cull, to.cull),
            (to.run < self.run, Mark::Run, to.run),
            (to.stop > self.stop, Mark::Stop, to.stop),
        ];
        let needed = moves.into_iter().filter(|(needed, _, _)| *needed);
        needed.map(|(_, mark, percent)| (mark, percent)).collect()
    }
}

impl Free {
    /// What a file system says of itself.
    #[must_use]
    pub fn of(stat: &StatVfs) -> Self {
        Free {
            blocks: stat.f_bavail,
            files: stat.f_ffree,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn parse(arguments: &[&str]) -> Result<Limits, clap::Error> {
        let line = ["x"].iter().chain(arguments);
        let line = Line::try_parse_from(line)?;
        Ok(line.limits.or(&LimitArgs::default()))
    }

    fn texts(limits: &Limits) -> Vec<String> {
        limits.commands().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_says_nothing() {
        let limits = parse(&[]).unwrap();
        limits.check().unwrap();
        assert_eq!(limits.commands(), []);
    }

    #[test]
    fn marks_out_of_order_are_named() {
        let error = |arguments: &[&str]| {
            let limits = parse(arguments).unwrap();
            limits.check().unwrap_err().to_string()
        };
        assert_eq!(
            error(&["--bcull=7"]),
            "--bcull 7 must be less than --brun 7"
        );
        assert_eq!(
            error(&["--fstop=6", "--fcull=6"]),
            "--fstop 6 must be less than --fcull 6"
        );
        assert!(parse(&["--brun=100"]).is_err());
        assert!(parse(&["--bstop=-1"]).is_err());
        assert!(parse(&["--fstop=1%"]).is_err());
    }

    #[test]
    fn all_can_be_raised_and_lowered() {
        let high = parse(&["--brun=30", "--bcull=20", "--bstop=10"]).unwrap();
        assert_eq!(texts(&high), ["brun 30%", "bcull 20%", "bstop 10%"]);
        let low = parse(&["--frun=2", "--fcull=1", "--fstop=0"]).unwrap();
        assert_eq!(texts(&low), ["fstop 0%", "fcull 1%", "frun 2%"]);
    }

    #[test]
    fn culling_may_end_when_both_are_met() {
        let mut stat = rustix::fs::statvfs("/").unwrap();
        (stat.f_blocks, stat.f_files) = (1099, 200);
        let limits = parse(&["--brun=20", "--frun=10"]).unwrap();
        let met = |blocks, files| limits.are_met(&stat, Free { blocks, files });
        assert!(met(200, 20));
        assert!(!met(199, 20));
        assert!(!met(200, 19));
        // Btrfs counts no files.
        stat.f_files = 0;
        assert!(limits.are_met(
            &stat,
            Free {
                blocks: 200,
                files: 0
            }
        ));
    }

    fn marks() -> impl Strategy<Value = Marks> {
        let ordered = |(run, cull, stop)| Marks { run, cull, stop };
        (2_u8..100)
            .prop_flat_map(|run| (Just(run), 1..run))
            .prop_flat_map(|(run, cull)| (Just(run), Just(cull), 0..cull))
            .prop_map(ordered)
    }

    proptest! {
        #[test]
        fn the_order_holds_all_the_way(from in marks(), to in marks()) {
            let moves = from.moves_to(to);
            prop_assert!(moves.len() <= 3);
            let mut now = from;
            for (mark, percent) in moves {
                let place = match mark {
                    Mark::Run => &mut now.run,
                    Mark::Cull => &mut now.cull,
                    Mark::Stop => &mut now.stop,
                };
                prop_assert_ne!(*place, percent, "a move that moves nothing");
                *place = percent;
                prop_assert!(now.stop < now.cull && now.cull < now.run && now.run < 100);
            }
            prop_assert_eq!(now, to);
        }
    }
}
