// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is explored: how often each event may come that nobody plans for, and in which combination.

use ondemand_core::model::Fault;
use ondemand_core::model::Sim;

/// How often each unplanned event may still come. What serving takes is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Readers that come; each waits for its object, then asks for a range.
    pub readers: u8,
    /// Readers that are killed.
    pub kills: u8,
    /// Anonymous fds that are closed before their time.
    pub closes: u8,
    /// Deaths of the daemon; the next one is there at once, or later.
    pub crashes: u8,
    /// `restore` without need: twice, or while the old daemon lives.
    pub restores: u8,
    /// Reads of the device that fail: no fd, a bad buffer, one that is too small.
    pub failures: u8,
    /// Answers that are accepted though the daemon does not hold what they answer.
    pub wrongs: u8,
    /// Requests that nobody answers in time.
    pub expiries: u8,
    /// Cookies that are withdrawn.
    pub drops: u8,
    /// Cookies that are looked up again after that.
    pub lookups: u8,
    /// Deaths of the cache.
    pub flushes: u8,
}

impl Budget {
    /// The budget as part of a situation.
    pub(crate) fn bytes(&self) -> [u8; 11] {
        let Budget {
            readers,
            kills,
            closes,
            crashes,
            restores,
            failures,
            wrongs,
            expiries,
            drops,
            lookups,
            flushes,
        } = *self;
        [
            readers, kills, closes, crashes, restores, failures, wrongs, expiries, drops, lookups,
            flushes,
        ]
    }
}

/// What the threads of the daemon are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// Two of one daemon; each may read whenever something is deliverable.
    #[default]
    Eager,
    /// The same, but they sleep after each read until they are woken, one at a time.
    Sleeping,
    /// Each is a daemon of its own, and may die alone: a takeover.
    Apart,
}

/// One exploration.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// What it is called.
    pub name: &'static str,
    /// Objects that are there from the beginning.
    pub objects: u8,
    /// What may happen.
    pub budget: Budget,
    /// Who reads the device.
    pub threads: Threads,
    /// Openings may be refused at any time: by the daemon, by the check of the file, for want of memory.
    pub refusals: bool,
}

impl Scope {
    /// The first situation.
    #[must_use]
    pub fn begin(&self, fault: Fault) -> Sim {
        let mut sim = Sim::new(fault);
        sim.readers_go_on = true;
        match self.threads {
            Threads::Eager => {}
            Threads::Sleeping => sim.awake = Some([true; 2]),
            Threads::Apart => sim.apart = true,
        }
        for _ in 0..self.objects {
            sim.admit();
        }
        sim
    }
}

/// Two objects, three readers, two threads, any opening may be refused; nothing else happens.
const QUIET: Budget = Budget {
    readers: 3,
    kills: 0,
    closes: 0,
    crashes: 0,
    restores: 0,
    failures: 0,
    wrongs: 0,
    expiries: 0,
    drops: 0,
    lookups: 0,
    flushes: 0,
};

/// One of each unplanned event.
const ONE: Budget = Budget {
    readers: 3,
    kills: 1,
    closes: 1,
    crashes: 1,
    restores: 1,
    failures: 1,
    wrongs: 1,
    expiries: 1,
    drops: 1,
    lookups: 1,
    flushes: 1,
};

fn scope(name: &'static str, threads: Threads, budget: Budget) -> Scope {
    Scope {
        name,
        objects: 2,
        budget,
        threads,
        refusals: true,
    }
}

/// What `make test` explores: all objects, readers and threads, with a few unplanned events each.
#[must_use]
pub fn small() -> Vec<Scope> {
    use Threads::{Apart, Eager, Sleeping};
    vec![
        scope("quiet", Eager, QUIET),
        scope("wake-ups", Sleeping, QUIET),
        scope("close", Eager, Budget { closes: 1, ..QUIET }),
        scope(
            "crash",
            Eager,
            Budget {
                crashes: 1,
                ..QUIET
            },
        ),
        scope(
            "close, restore",
            Eager,
            Budget {
                closes: 1,
                restores: 1,
                ..QUIET
            },
        ),
        scope(
            "close, failure",
            Eager,
            Budget {
                closes: 1,
                failures: 1,
                ..QUIET
            },
        ),
        scope(
            "drop, flush",
            Eager,
            Budget {
                drops: 1,
                flushes: 1,

                ..QUIET
            },
        ),
        scope(
            "restore",
            Eager,
            Budget {
                restores: 2,
                ..QUIET
            },
        ),
        scope(
            "failures",
            Eager,
            Budget {
                failures: 1,
                ..QUIET
            },
        ),
        scope(
            "deadline",
            Eager,
            Budget {
                expiries: 1,
                kills: 1,
                ..QUIET
            },
        ),
        scope("drop", Eager, Budget { drops: 1, ..QUIET }),
        scope(
            "flush",
            Eager,
            Budget {
                flushes: 1,
                ..QUIET
            },
        ),
        scope(
            "takeover, two readers",
            Apart,
            Budget {
                readers: 2,
                crashes: 1,
                ..QUIET
            },
        ),
        scope(
            "failing wake-ups",
            Sleeping,
            Budget {
                failures: 1,
                ..QUIET
            },
        ),
        Scope {
            // One object and one reader, with nearly everything at once.
            objects: 1,
            ..scope(
                "all, one reader",
                Eager,
                Budget {
                    readers: 1,
                    kills: 0,
                    failures: 0,
                    lookups: 0,
                    ..ONE
                },
            )
        },
    ]
}

/// What `make model` explores besides: every two unplanned events together, and some in threes.
#[must_use]
pub fn large() -> Vec<Scope> {
    use Threads::{Apart, Eager, Sleeping};
    type Raise = fn(&mut Budget);
    let kinds: [(&str, Raise); 8] = [
        ("close", |b| b.closes += 1),
        ("crash", |b| b.crashes += 1),
        ("restore", |b| b.restores += 1),
        ("failure", |b| b.failures += 1),
        ("deadline", |b| b.expiries += 1),
        ("kill", |b| b.kills += 1),
        ("drop", |b| b.drops += 1),
        ("flush", |b| b.flushes += 1),
    ];
    let takeover = Budget {
        crashes: 1,
        ..QUIET
    };
    let mut scopes = vec![scope("takeover", Apart, takeover)];
    // A third object makes many more situations, since only two are known to be alike.
    let again = Budget {
        readers: 2,
        drops: 1,
        lookups: 1,
        ..QUIET
    };
    scopes.push(scope("drop, lookup, two readers", Eager, again));
    // In pairs.
    for (at, (first, raise_first)) in kinds.iter().enumerate() {
        for (second, raise_second) in &kinds[at..] {
            let mut budget = QUIET;
            raise_first(&mut budget);
            raise_second(&mut budget);
            // An answer to what a dead daemon has left needs a dead daemon.
            budget.wrongs = budget.crashes.min(1);
            let name = String::leak(format!("{first} + {second}"));
            scopes.push(scope(name, Eager, budget));
        }
    }
    scopes.push(scope(
        "takeover, restore",
        Apart,
        Budget {
            crashes: 1,
            restores: 1,
            ..QUIET
        },
    ));
    scopes.push(scope(
        "takeover + wrong",
        Apart,
        Budget {
            crashes: 1,
            wrongs: 1,
            ..QUIET
        },
    ));
    scopes.push(scope(
        "wake-ups + close",
        Sleeping,
        Budget { closes: 1, ..QUIET },
    ));
    scopes.push(scope(
        "wake-ups + crash",
        Sleeping,
        Budget {
            crashes: 1,
            ..QUIET
        },
    ));
    scopes.push(Scope {
        objects: 1,
        ..scope(
            "all, one reader, one object",
            Eager,
            Budget { readers: 1, ..ONE },
        )
    });
    scopes
}
