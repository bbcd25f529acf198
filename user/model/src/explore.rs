// SPDX-License-Identifier: MIT OR Apache-2.0

//! The exploration: breadth first over keys, so that the way to what is found is a shortest one.
//!
//! A situation is kept as a hash of 128 bits of its key; among 10^9 of them two would meet by chance
//! with a probability of 10^-21. The situations themselves are kept only until their turn has come.

use crate::cycles::Edges;
use crate::moves::apply;
use crate::moves::steps;
use crate::moves::Move;
use crate::moves::Step;
use crate::scope::Budget;
use crate::scope::Scope;
use crate::scope::Threads;
use hashbrown::hash_table::Entry;
use hashbrown::HashTable;
use ondemand_core::model::Fault;
use ondemand_core::model::Sim;
use ondemand_core::ondemand::state::Awaited;
use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use std::time::Instant;
use twox_hash::XxHash3_128;

/// What is held against each situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// The invariants of the table and of everybody around it, `ondemand_core::model::check`.
    Invariants,
    /// What is no answer to anything is refused and changes nothing.
    WrongAnswers,
    /// Where a daemon that serves has nothing left to do, nobody waits.
    NobodyWaits,
    /// There, the cache can go away, and nothing is left of it.
    NothingLeft,
    /// Serving comes to an end.
    ServingEnds,
}

/// A property that does not hold, and the way to it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// What was seen.
    pub why: String,
    /// What has to happen, in order.
    pub path: Vec<Move>,
    /// What then happens for ever.
    pub cycle: Vec<Move>,
}

/// What an exploration has found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Situations that differ.
    pub states: usize,
    /// Steps between them.
    pub steps: u64,
    /// Of these, steps of serving.
    pub serving: usize,
    /// Situations in which a daemon that serves has nothing left to do.
    pub quiet: u64,
    /// Events that the farthest situation is away from the first.
    pub depth: u32,
    /// How long it took.
    pub time: Duration,
    /// Every situation was visited, within the limit.
    pub complete: bool,
    /// The first violation.
    pub violation: Option<Violation>,
}

/// How to explore.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The rule to break.
    pub fault: Fault,
    /// Check the invariants and wrong answers; off to see what liveness alone finds.
    pub safety: bool,
    /// Check that serving ends well; off to see what the invariants alone find.
    pub liveness: bool,
    /// No more situations than this.
    pub limit: usize,
    /// Tell how far it has come, on standard error.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            fault: Fault::None,
            safety: true,
            liveness: true,
            limit: usize::MAX,
            progress: false,
        }
    }
}

/// How a situation was met first.
#[derive(Clone, Copy)]
struct Origin {
    from: u32,
    event: Move,
}

struct Explorer<'a> {
    scope: &'a Scope,
    options: Options,
    table: HashTable<u32>,
    hashes: Vec<u128>,
    origins: Vec<Origin>,
    edges: Edges,
    /// Those whose turn has not come.
    queue: VecDeque<(Sim, Budget)>,
    key: Vec<u8>,
    steps: u64,
    quiet: u64,
}

/// Explores every order of events within the scope.
#[must_use]
pub fn explore(scope: &Scope, options: Options) -> Outcome {
    let start = Instant::now();
    // Of two daemons each may take READs whose fd the other has, and can neither answer them nor
    // give them back: nothing ends before one of them does.
    let options = Options {
        liveness: options.liveness && scope.threads != Threads::Apart,
        ..options
    };
    let mut explorer = Explorer {
        scope,
        options,
        table: HashTable::new(),
        hashes: Vec::new(),
        origins: Vec::new(),
        edges: Edges::default(),
        queue: VecDeque::new(),
        key: Vec::new(),
        steps: 0,
        quiet: 0,
    };
    let violation = explorer.run(start);
    let states = explorer.hashes.len();
    Outcome {
        states,
        steps: explorer.steps,
        serving: explorer.edges.len(),
        quiet: explorer.quiet,
        depth: explorer.depth_of(states - 1),
        time: start.elapsed(),
        complete: violation.is_none() && explorer.queue.is_empty(),
        violation,
    }
}

impl Explorer<'_> {
    fn run(&mut self, start: Instant) -> Option<Violation> {
        let first = self.scope.begin(self.options.fault);
        let origin = Origin {
            from: u32::MAX,
            event: Move::Restore,
        };
        self.meet(first, self.scope.budget, origin);
        let mut can = Vec::new();
        let mut at = 0;
        let mut told = start;
        while let Some((sim, budget)) = self.queue.pop_front() {
            if let Err((property, why)) = self.expand(at, &sim, budget, &mut can) {
                return Some(self.violation(at, property, why));
            }
            at += 1;
            if self.hashes.len() >= self.options.limit {
                return None;
            }
            if self.options.progress && told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                eprintln!(
                    "  {}: {} situations, {} of them visited, {:.0} a second",
                    self.scope.name,
                    self.hashes.len(),
                    at,
                    at as f64 / start.elapsed().as_secs_f64()
                );
            }
        }
        if !self.options.liveness {
            return None;
        }
        let cycle = self.edges.cycle()?;
        Some(self.endless(&cycle))
    }

    /// Tells the number of a situation, and keeps it if it is new.
    fn meet(&mut self, sim: Sim, budget: Budget, origin: Origin) -> u32 {
        self.key.clear();
        self.key.extend(budget.bytes());
        sim.key(&mut self.key);
        let hash = XxHash3_128::oneshot(&self.key);
        let hashes = &self.hashes;
        let short = |hash: u128| u64::try_from(hash >> 64).unwrap_or(0);
        let entry = self.table.entry(
            short(hash),
            |at| hashes[*at as usize] == hash,
            |at| short(hashes[*at as usize]),
        );
        match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let number = u32::try_from(hashes.len()).expect("fewer than 2^32 situations");
                free.insert(number);
                self.hashes.push(hash);
                self.origins.push(origin);
                self.queue.push_back((sim, budget));
                number
            }
        }
    }

    /// Checks a situation, and takes every step from it.
    fn expand(
        &mut self,
        at: usize,
        sim: &Sim,
        budget: Budget,
        can: &mut Vec<Step>,
    ) -> Result<(), (Property, String)> {
        if self.options.safety {
            sim.check().map_err(|why| (Property::Invariants, why))?;
            sim.refuses_wrong_answers()
                .map_err(|why| (Property::WrongAnswers, why))?;
        }
        steps(self.scope, sim, budget, can);
        if self.options.liveness && !can.iter().any(|step| step.serving) {
            self.quiet += 1;
            nobody_waits(sim).map_err(|why| (Property::NobodyWaits, why))?;
            for flush in [false, true] {
                sim.clone()
                    .tear_down(flush)
                    .map_err(|why| (Property::NothingLeft, why))?;
            }
        }
        for step in &*can {
            let mut next = sim.clone();
            let event = step.event;
            let done = catch_unwind(AssertUnwindSafe(|| apply(&mut next, event)));
            if done.is_err() {
                return Err((Property::Invariants, format!("{event}: it panics")));
            }
            let from = u32::try_from(at).unwrap_or(u32::MAX);
            let number = self.meet(next, step.budget, Origin { from, event });
            self.steps += 1;
            if step.serving && self.options.liveness {
                self.edges.push(number);
            }
        }
        self.edges.end();
        Ok(())
    }

    fn depth_of(&self, mut at: usize) -> u32 {
        let mut depth = 0;
        while let Some(origin) = self.origins.get(at).filter(|o| o.from != u32::MAX) {
            at = origin.from as usize;
            depth += 1;
        }
        depth
    }

    fn path_to(&self, mut at: usize) -> Vec<Move> {
        let mut path = Vec::new();
        while let Some(origin) = self.origins.get(at).filter(|o| o.from != u32::MAX) {
            path.push(origin.event);
            at = origin.from as usize;
        }
        path.reverse();
        path
    }

    fn violation(&self, at: usize, property: Property, why: String) -> Violation {
        Violation {
            property,
            why,
            path: self.path_to(at),
            cycle: Vec::new(),
        }
    }

    /// The way to a cycle, and once around it.
    ///
    /// A situation was kept as it was met first, and the numbers in events are those of one way to it:
    /// the way around is found again by keys, from where the way to the cycle ends.
    fn endless(&mut self, cycle: &[u32]) -> Violation {
        let path = self.path_to(cycle[0] as usize);
        let mut sim = self.scope.begin(self.options.fault);
        let mut budget = self.scope.budget;
        let mut can = Vec::new();
        for event in &path {
            steps(self.scope, &sim, budget, &mut can);
            if let Some(step) = can.iter().find(|step| step.event == *event) {
                budget = step.budget;
            }
            apply(&mut sim, *event);
        }
        let mut around = Vec::new();
        for next in cycle[1..].iter().chain(&cycle[..1]) {
            steps(self.scope, &sim, budget, &mut can);
            for step in can.iter().filter(|step| step.serving) {
                let mut after = sim.clone();
                apply(&mut after, step.event);
                let origin = Origin {
                    from: u32::MAX,
                    event: step.event,
                };
                if self.meet(after.clone(), step.budget, origin) == *next {
                    around.push(step.event);
                    sim = after;
                    break;
                }
            }
        }
        Violation {
            property: Property::ServingEnds,
            why: format!(
                "{} steps of serving lead back to where they began",
                cycle.len()
            ),
            path,
            cycle: around,
        }
    }
}

fn nobody_waits(sim: &Sim) -> Result<(), String> {
    if let Some((label, account)) = sim.ledger.iter().next() {
        return Err(format!("request {label} is left: {account:?}"));
    }
    let waits = sim.waiters.iter().find(|w| w.told == Awaited::Pending);
    match waits {
        Some(waiter) => Err(format!("{waiter:?} waits for ever")),
        None => Ok(()),
    }
}
