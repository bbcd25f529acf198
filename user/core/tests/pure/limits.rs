// SPDX-License-Identifier: MIT OR Apache-2.0

//! The order of the marks: `stop < cull < run < 100`, whatever is tried.

use ondemand_core::errno::Errno;
use ondemand_core::limits::Level;
use ondemand_core::limits::Limits;
use ondemand_core::limits::Mark;
use ondemand_core::limits::Resource;
use proptest::prelude::*;

const MARKS: [Mark; 3] = [Mark::Run, Mark::Cull, Mark::Stop];

fn percents(limits: &Limits, resource: Resource) -> [u8; 3] {
    MARKS.map(|mark| limits.of(resource).percent(mark))
}

/// From the defaults, 7, 5 and 1 %.
#[test]
fn each_mark_stays_between_its_neighbours() {
    for (mark, percent, fine) in [
        (Mark::Run, 0, false),
        (Mark::Run, 5, false),
        (Mark::Run, 6, true),
        (Mark::Run, 99, true),
        (Mark::Run, 100, false),
        (Mark::Run, u8::MAX, false),
        (Mark::Cull, 0, false),
        (Mark::Cull, 1, false),
        (Mark::Cull, 2, true),
        (Mark::Cull, 6, true),
        (Mark::Cull, 7, false),
        (Mark::Cull, u8::MAX, false),
        (Mark::Stop, 0, true),
        (Mark::Stop, 4, true),
        (Mark::Stop, 5, false),
        (Mark::Stop, u8::MAX, false),
    ] {
        for resource in [Resource::Blocks, Resource::Files] {
            let mut limits = Limits::default();
            let result = limits.set(resource, mark, percent);
            if fine {
                assert_eq!(result, Ok(()));
                assert_eq!(limits.of(resource).percent(mark), percent);
            } else {
                assert_eq!(result, Err(Errno::EINVAL), "{mark:?} {percent}");
                assert_eq!(limits, Limits::default());
            }
        }
    }
}

#[test]
fn resources_are_apart() {
    let mut limits = Limits::default();
    limits.set(Resource::Files, Mark::Run, 50).unwrap();
    assert_eq!(percents(&limits, Resource::Files), [50, 5, 1]);
    assert_eq!(percents(&limits, Resource::Blocks), [7, 5, 1]);
}

#[test]
fn amounts_round_the_hundredth_down() {
    for (total, run, cull, stop) in [
        (0, 0, 0, 0),
        (99, 0, 0, 0),
        (100, 7, 5, 1),
        (199, 7, 5, 1),
        (10_000, 700, 500, 100),
        (
            u64::MAX,
            u64::MAX / 100 * 7,
            u64::MAX / 100 * 5,
            u64::MAX / 100,
        ),
    ] {
        let amounts = Limits::default().of(Resource::Blocks).amounts(total);
        assert_eq!([amounts.run, amounts.cull, amounts.stop], [run, cull, stop]);
    }
}

proptest! {
    #[test]
    fn order_holds_whatever_is_set(steps in prop::collection::vec((any::<bool>(), 0..3usize, any::<u8>()), 0..64)) {
        let mut limits = Limits::default();
        for (files, mark, percent) in steps {
            let resource = if files { Resource::Files } else { Resource::Blocks };
            let before = limits;
            if limits.set(resource, MARKS[mark], percent).is_err() {
                prop_assert_eq!(limits, before);
            }
            for resource in [Resource::Blocks, Resource::Files] {
                let [run, cull, stop] = percents(&limits, resource);
                prop_assert!(stop < cull && cull < run && run < 100);
            }
        }
    }
}

/// Of 1,000 blocks and 1,000 files, with the default marks: stop 10, cull 50, run 70.
#[test]
fn the_scarcer_resource_sets_the_level() {
    let marks = Limits::default().marks(1000, 1000);
    for (left, level) in [
        (0, Level::Full),
        (9, Level::Full),
        (10, Level::Low),
        (49, Level::Low),
        (50, Level::Middling),
        (69, Level::Middling),
        (70, Level::Ample),
        (u64::MAX, Level::Ample),
    ] {
        assert_eq!(marks.level(left, 1000), level, "{left} blocks");
        assert_eq!(marks.level(1000, left), level, "{left} files");
        assert_eq!(level.may_store(), left >= 10, "{left}");
    }
}

/// A file system that counts no files has no limit on them.
#[test]
fn nothing_of_nothing_is_ample() {
    let marks = Limits::default().marks(1000, 0);
    assert_eq!(marks.level(1000, 0), Level::Ample);
}

#[test]
fn culling_goes_on_until_run_is_reached() {
    let marks = Limits::default().marks(1000, 1000);
    let mut culling = false;
    let seen = [100, 60, 49, 60, 69, 70, 60, 50].map(|left| {
        culling = marks.level(left, 1000).wants_culling(culling);
        culling
    });
    assert_eq!(seen, [false, false, true, true, true, false, false, false]);
}
