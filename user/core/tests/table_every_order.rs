// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every order of the events of a small cache, with the model checker stateright: one object, up to
//! two READs, a daemon of two threads, and a few of the events that nobody plans for. The state space
//! is bounded by how often each kind of event may happen, and explored to its end.

use ondemand_core::model::Event;
use ondemand_core::model::Fault;
use ondemand_core::model::Policy;
use ondemand_core::model::Sim;
use ondemand_core::ondemand::queue::Kind;
use stateright::Checker;
use stateright::Model;
use stateright::Property;
use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;

/// How often each kind of event may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    reads: u8,
    waits: u8,
    opens: u8,
    closes: u8,
    crashes: u8,
    restores: u8,
    errors: u8,
    drops: u8,
    flushes: u8,
    kills: u8,
}

/// Nothing unplanned happens.
const CALM: Budget = Budget {
    reads: 1,
    waits: 0,
    opens: 2,
    closes: 0,
    crashes: 0,
    restores: 0,
    errors: 0,
    drops: 0,
    flushes: 0,
    kills: 0,
};

/// A moment of the cache's life.
#[derive(Clone)]
struct Moment {
    sim: Sim,
    budget: Budget,
    /// All that matters of `sim`.
    key: String,
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.budget == other.budget && self.key == other.key
    }
}

impl Hash for Moment {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.budget.hash(state);
        self.key.hash(state);
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.sim.clone().check().and(can_end(&self.sim));
        write!(f, "{} {why:?}", self.key)
    }
}

/// Whatever has begun can end: with each daemon, and with the cache.
fn can_end(sim: &Sim) -> Result<(), String> {
    for policy in [Policy::Same, Policy::Successor, Policy::Stranger] {
        sim.clone().serve(policy)?.tear_down(false)?;
    }
    sim.clone().tear_down(false)?;
    sim.clone().tear_down(true)
}

struct Cache {
    fault: Fault,
    budget: Budget,
}

/// Takes one from a budget; `None` if there is none.
fn spend(budget: &mut u8) -> Option<()> {
    *budget = budget.checked_sub(1)?;
    Some(())
}

impl Budget {
    fn pay(&mut self, event: Event) -> Option<()> {
        match event {
            Event::Read(_) => spend(&mut self.reads),
            Event::Await(_) => spend(&mut self.waits),
            Event::Close(_) => spend(&mut self.closes),
            Event::Crash => spend(&mut self.crashes),
            Event::Restore => spend(&mut self.restores),
            Event::Work(_, false)
            | Event::End(_, false)
            | Event::Copen(_, false)
            | Event::Finish(_, false) => spend(&mut self.errors),
            Event::Drop(_) => spend(&mut self.drops),
            Event::Flush => spend(&mut self.flushes),
            Event::Cancel(_) => spend(&mut self.kills),
            _ => Some(()),
        }
    }
}

fn first(count: usize) -> impl Iterator<Item = u8> {
    (0..=u8::MAX).take(count)
}

impl Model for Cache {
    type State = Moment;
    type Action = Event;

    fn init_states(&self) -> Vec<Moment> {
        let mut sim = Sim::new(self.fault);
        sim.admit();
        let key = sim.fingerprint();
        vec![Moment {
            sim,
            budget: self.budget,
            key,
        }]
    }

    fn actions(&self, moment: &Moment, actions: &mut Vec<Event>) {
        let sim = &moment.sim;
        actions.extend([
            Event::Read(0),
            Event::Await(0),
            Event::Restore,
            Event::Crash,
            Event::Drop(0),
            Event::Flush,
        ]);
        for ok in [true, false] {
            actions.extend(first(sim.works.len()).map(|n| Event::Work(n, ok)));
            actions.extend(first(sim.hand.len()).map(|n| Event::Copen(n, ok)));
            actions.extend(first(sim.checks.len()).map(|n| Event::Finish(n, ok)));
            actions.extend(first(2).map(|thread| Event::End(thread, ok)));
        }
        // The threads are alike: the second begins only while the first reads.
        let thread = u8::from(sim.deliveries.contains_key(&0));
        actions.push(Event::Begin(thread, false));
        actions.extend(first(sim.hand.len()).map(Event::Complete));
        actions.extend(first(sim.fds.len()).map(Event::Close));
        actions.extend(first(sim.pending.len()).map(Event::Resume));
        actions.extend(first(usize::from(self.budget.reads)).map(Event::Cancel));
    }

    fn next_state(&self, last: &Moment, event: Event) -> Option<Moment> {
        let Moment {
            mut sim,
            mut budget,
            ..
        } = last.clone();
        budget.pay(event)?;
        let opens = sim.opens_shown;
        sim.apply(event)?;
        if sim.opens_shown > opens {
            spend(&mut budget.opens)?;
        }
        let key = sim.fingerprint();
        Some(Moment { sim, budget, key })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the invariants hold", |_, moment: &Moment| {
                moment.sim.clone().check().is_ok()
            }),
            Property::always("what has begun can end", |_, moment: &Moment| {
                can_end(&moment.sim).is_ok()
            }),
            Property::sometimes("a READ ends well", |_, moment: &Moment| {
                moment.sim.ledger.values().any(|account| {
                    matches!(account.kind, Kind::Read { .. }) && account.outcome == Some(Ok(()))
                })
            }),
            Property::sometimes("the object is opened again", |_, moment: &Moment| {
                moment.sim.opens_shown > 1
            }),
        ]
    }
}

/// Explores to the end, and tells how many different moments there are.
fn explore(budget: Budget) -> usize {
    let model = Cache {
        fault: Fault::None,
        budget,
    };
    let checker = model.checker().spawn_bfs().join();
    checker.assert_properties();
    println!("{budget:?}: {} moments", checker.unique_state_count());
    checker.unique_state_count()
}

#[test]
fn closing_at_any_time() {
    let budget = Budget {
        closes: 2,
        opens: 3,
        reads: 2,
        ..CALM
    };
    assert!(explore(budget) > 100);
}

#[test]
fn a_crash_and_restore_at_any_time() {
    let budget = Budget {
        crashes: 1,
        restores: 1,
        opens: 3,
        reads: 2,
        ..CALM
    };
    assert!(explore(budget) > 100);
}

#[test]
fn errors_at_any_time() {
    let budget = Budget {
        errors: 2,
        closes: 1,
        waits: 1,
        opens: 3,
        ..CALM
    };
    assert!(explore(budget) > 100);
}

#[test]
fn a_drop_and_a_flush_at_any_time() {
    let budget = Budget {
        drops: 1,
        flushes: 1,
        closes: 1,
        kills: 1,
        waits: 1,
        ..CALM
    };
    assert!(explore(budget) > 100);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "too slow without optimisation")]
fn a_bad_day() {
    let budget = Budget {
        closes: 1,
        crashes: 1,
        restores: 1,
        errors: 1,
        drops: 1,
        ..CALM
    };
    assert!(explore(budget) > 1000);
}

#[test]
fn a_broken_rule_is_found() {
    for (fault, property) in [
        (Fault::ForgetMark(2), "the invariants hold"),
        (Fault::DropWake, "the invariants hold"),
        (Fault::DropReopen, "the invariants hold"),
        (Fault::SkipResume, "the invariants hold"),
    ] {
        let budget = Budget {
            closes: 1,
            drops: 1,
            ..CALM
        };
        let checker = Cache { fault, budget }.checker().spawn_bfs().join();
        checker.assert_any_discovery(property);
    }
}
