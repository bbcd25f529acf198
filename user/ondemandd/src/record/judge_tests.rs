// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table, and a model of what a store can have in it when sessions on both modules, changes of the source and
//! losses of power follow one another.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn version(number: u8) -> Identity {
    Identity::new("test", &[&[number]], &format_args!("version {number}"))
}

fn entry(number: u8, sole: bool) -> Entry {
    Entry {
        token: version(number).token,
        size: 4096,
        sole,
        manifest: false,
        what: version(number).what,
        changed: None,
    }
}

#[test]
fn what_is_recorded_decides() {
    let judge = |entry: Option<Entry>, carried, guard, opening| {
        judge(
            (entry.as_ref(), carried),
            guard,
            opening,
            (&version(1), 4096),
            false,
        )
    };
    let (same, mixed, other) = (entry(1, true), entry(1, false), entry(2, true));
    let (first, again) = (Opening::First, Opening::Again);
    let (old, lost) = (Some(Carried::Old), Some(Carried::Lost));
    for (known, carried, on_record, on_kernel) in [
        (
            Some(&same),
            None,
            [Verdict::Answer, Verdict::Answer],
            Verdict::Answer,
        ),
        (
            Some(&mixed),
            None,
            [Verdict::Replace(same.clone()), Verdict::Unknown],
            Verdict::Answer,
        ),
        (
            Some(&other),
            None,
            [
                Verdict::Replace(same.clone()),
                Verdict::Changed("was version 2, is version 1".to_owned()),
            ],
            Verdict::Note(mixed.clone()),
        ),
        (
            None,
            None,
            [Verdict::Note(same.clone()), Verdict::Note(same.clone())],
            Verdict::Note(same.clone()),
        ),
        (
            None,
            old,
            [Verdict::Replace(same.clone()), Verdict::Note(mixed.clone())],
            Verdict::Note(mixed.clone()),
        ),
        (
            None,
            lost,
            [Verdict::Replace(same.clone()), Verdict::Unknown],
            Verdict::Note(mixed.clone()),
        ),
        (
            Some(&mixed),
            old,
            [Verdict::Replace(same.clone()), Verdict::Answer],
            Verdict::Answer,
        ),
    ] {
        let known = || known.cloned();
        assert_eq!(judge(known(), carried, Guard::Record, first), on_record[0]);
        assert_eq!(judge(known(), carried, Guard::Record, again), on_record[1]);
        assert_eq!(judge(known(), carried, Guard::Kernel, first), on_kernel);
        assert_eq!(judge(known(), carried, Guard::Kernel, again), on_kernel);
    }
}

#[test]
fn a_manifest_that_was_forgotten_is_noted_again() {
    let verdict = judge(
        (Some(&entry(1, true)), None),
        Guard::Record,
        Opening::First,
        (&version(1), 4096),
        true,
    );
    let with = Entry {
        manifest: true,
        ..entry(1, true)
    };
    assert_eq!(verdict, Verdict::Note(with));
}

/// A stored file.
#[derive(Clone, Debug, Default)]
struct Stored {
    /// Of which versions it has bytes.
    bytes: BTreeSet<u8>,
    /// The token that a module which knows them has written beside it.
    token: Option<u8>,
    stale: bool,
}

/// A mounted image: which version, and its file, if that has no name yet.
#[derive(Clone, Debug)]
struct Mount {
    version: u8,
    fresh: Option<Stored>,
}

#[derive(Clone, Debug)]
struct World {
    source: u8,
    guard: Guard,
    named: Option<Stored>,
    entry: Option<Entry>,
    mount: Option<Mount>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(u8),
    Mount,
    /// Power is lost after the note, before the answer.
    MountCut,
    Reopen,
    Fill,
    /// A file without a name gets it.
    Commit,
    Unmount,
    Cut,
    Module(bool),
}

impl World {
    fn judge(&mut self, opening: Opening) -> Verdict {
        let verdict = judge(
            (self.entry.as_ref(), None),
            self.guard,
            opening,
            (&version(self.source), 4096),
            false,
        );
        match &verdict {
            Verdict::Note(entry) => self.entry = Some(entry.clone()),
            Verdict::Replace(entry) => {
                if let Some(named) = &mut self.named {
                    named.stale = true;
                }
                self.entry = Some(entry.clone());
            }
            _ => {}
        }
        verdict
    }

    fn mount(&mut self) {
        let verdict = self.judge(Opening::First);
        assert!(!matches!(verdict, Verdict::Changed(_) | Verdict::Unknown));
        let is_valid = self.named.as_ref().is_some_and(|named| {
            !named.stale && (self.guard == Guard::Record || named.token == Some(self.source))
        });
        let fresh = (!is_valid).then(|| Stored {
            token: (self.guard == Guard::Kernel).then_some(self.source),
            ..Stored::default()
        });
        self.mount = Some(Mount {
            version: self.source,
            fresh,
        });
    }

    fn file(&mut self) -> Option<&mut Stored> {
        let mount = self.mount.as_mut()?;
        mount.fresh.as_mut().or(self.named.as_mut())
    }

    fn commit(&mut self) {
        if let Some(fresh) = self.mount.as_mut().and_then(|mount| mount.fresh.take()) {
            self.named = Some(fresh);
        }
    }

    fn step(&mut self, step: Step) {
        let mounted = self.mount.as_ref().map(|mount| mount.version);
        match step {
            Step::Publish(version) => self.source = version,
            Step::Mount if mounted.is_none() => self.mount(),
            Step::MountCut if mounted.is_none() => {
                self.judge(Opening::First);
            }
            Step::Reopen if mounted.is_some() => {
                let same = mounted == Some(self.source);
                let verdict = self.judge(Opening::Again);
                let is_answered = match self.guard {
                    // It compares by itself.
                    Guard::Kernel => same,
                    Guard::Record => matches!(verdict, Verdict::Answer | Verdict::Note(_)),
                };
                assert_eq!(is_answered, same, "{verdict:?}");
            }
            // What is read of another version is seen to be, and not written.
            Step::Fill if mounted == Some(self.source) => {
                let version = self.source;
                self.file().unwrap().bytes.insert(version);
            }
            Step::Commit => self.commit(),
            Step::Unmount => {
                self.commit();
                self.mount = None;
            }
            Step::Cut => self.mount = None,
            Step::Module(knows) if mounted.is_none() => {
                self.guard = if knows { Guard::Kernel } else { Guard::Record };
            }
            _ => {}
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u8).prop_map(Step::Publish),
        Just(Step::Mount),
        Just(Step::MountCut),
        Just(Step::Reopen),
        Just(Step::Fill),
        Just(Step::Fill),
        Just(Step::Commit),
        Just(Step::Unmount),
        Just(Step::Cut),
        any::<bool>().prop_map(Step::Module),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn no_mount_sees_two_versions(steps in prop::collection::vec(steps(), 1..40)) {
        let mut world = World {
            source: 0,
            guard: Guard::Record,
            named: None,
            entry: None,
            mount: None,
        };
        for step in steps {
            world.step(step);
            let mounted = world.mount.as_ref().map(|mount| mount.version);
            if let (Some(version), Some(file)) = (mounted, world.file()) {
                let others = file.bytes.iter().any(|byte| *byte != version);
                prop_assert!(!others, "{world:?}");
            }
        }
    }
}
