// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random scripts.

use fastrand::Rng;

use crate::script::Action;
use crate::script::Kept;
use crate::script::On;
use crate::script::Point;
use crate::script::Rule;
use crate::script::Side;
use crate::script::Tick;
use crate::Script;

impl Script {
    /// A script of up to six rules and three ticks, always the same for a seed.
    ///
    /// It has nothing that needs the name of a file, and no `errno` and `wrong-size`, which may
    /// end a mount for good reason, for the first opening of an image.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let random = &mut random;
        Script {
            // TOML knows numbers with a sign only.
            seed: Some(seed >> 1),
            threads: random.usize(1..=4),
            pollers: random.usize(0..=1),
            restore: true,
            mount_namespace: random.bool(),
            rules: (0..random.usize(1..=6)).map(|_| rule(random)).collect(),
            ticks: (0..random.usize(0..=3)).map(|_| tick(random)).collect(),
        }
    }
}

fn rule(random: &mut Rng) -> Rule {
    let on = pick(random, &[On::Open, On::Read, On::Read, On::Close]);
    let action = match random.u8(..4) {
        0 => beside(random),
        1 => Action::Delay(random.u64(1..=30)),
        _ => wrong(random, on),
    };
    let mut rule = Rule {
        on,
        image: None,
        nth: None,
        every: None,
        chance: None,
        action,
    };
    match random.u8(..3) {
        0 => rule.nth = Some(random.u64(1..=20)),
        1 => rule.every = Some(random.u64(2..=10)),
        // Numbers that TOML shows in full.
        _ => rule.chance = Some(f64::from(random.u8(1..=16)) / 64.0),
    }
    rule
}

fn wrong(random: &mut Rng, on: On) -> Action {
    use Point as P;
    let side = pick(random, &[Side::Before, Side::After]);
    let opening = [P::AfterRead, P::BeforeCopen, P::AfterCopen];
    let reading = [
        P::AfterRead,
        P::BeforeFill,
        P::MidFill,
        P::BeforeComplete,
        P::AfterComplete,
    ];
    match (on, random.u8(..6)) {
        (On::Close, 0) => Action::Die(P::AfterRead),
        (On::Close, _) => Action::Drop,
        (_, 0) => Action::Drop,
        (_, 1) => Action::Duplicate,
        (_, 2) => Action::WrongId,
        (_, 3) => Action::CloseEarly(side),
        (On::Open, _) => Action::Die(pick(random, &opening)),
        (_, 4) => Action::WrongSize(pick(random, &[-4096, 4096, 1 << 16])),
        _ => Action::Die(pick(random, &reading)),
    }
}

fn tick(random: &mut Rng) -> Tick {
    Tick {
        ms: random.u64(1..=20),
        action: pick(
            random,
            &[
                Action::Restore(2),
                Action::Garbage(1),
                Action::Poke,
                Action::CloseAll,
            ],
        ),
    }
}

fn beside(random: &mut Rng) -> Action {
    let kept = pick(random, &[Kept::Files, Kept::Device, Kept::Both]);
    pick(
        random,
        &[
            Action::ForkKeep(kept),
            Action::ExhaustFds(30),
            Action::Restore(1),
            Action::Garbage(3),
            Action::CloseAll,
            Action::Poke,
        ],
    )
}

fn pick<T: Clone>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(..from.len())].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_random_script_is_one() {
        for seed in (0..2000).chain([u64::MAX]) {
            let script = Script::random(seed);
            let text = script.to_toml().unwrap();
            let again = Script::parse(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
            assert_eq!(again, script, "{text}");
            assert_eq!(Script::random(seed), script);
        }
    }
}
