// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which rule applies to a message.

use std::sync::Mutex;
use std::sync::PoisonError;

use crate::script::Action;
use crate::script::On;
use crate::script::Rule;

/// The rules, and how many messages each has seen.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: Vec<u64>,
    random: fastrand::Rng,
}

impl Rules {
    pub(crate) fn new(rules: Vec<Rule>, seed: u64) -> Self {
        let seen = vec![0; rules.len()];
        let random = fastrand::Rng::with_seed(seed);
        Rules {
            rules,
            state: Mutex::new(State { seen, random }),
        }
    }

    /// What is to be done with a message of this kind; `image` is `None` if it is not known which.
    /// All rules that are about it count it.
    pub(crate) fn choose(&self, on: On, image: Option<&str>) -> Option<&Action> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { seen, random } = &mut *state;
        let mut chosen = None;
        for (rule, seen) in self.rules.iter().zip(seen) {
            let about = (rule.on == On::Any || rule.on == on)
                && (rule.image.is_none() || rule.image.as_deref() == image);
            if !about {
                continue;
            }
            *seen += 1;
            let applies = rule.nth.is_none_or(|nth| nth == *seen)
                && rule.every.is_none_or(|every| *seen % every == 0)
                && rule.chance.is_none_or(|chance| random.f64() < chance);
            if applies && chosen.is_none() {
                chosen = Some(&rule.action);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Script;

    fn rules(text: &str) -> Rules {
        Rules::new(Script::parse(text).unwrap().rules, 1)
    }

    fn which(rules: &Rules, on: On, image: &str, count: usize) -> Vec<usize> {
        let applies = |_: &usize| rules.choose(on, Some(image)).is_some();
        (1..=count).filter(applies).collect()
    }

    #[test]
    fn counting() {
        let rules = rules("[[rule]]\non = \"read\"\nnth = 3\ndo = \"drop\"\n[[rule]]\non = \"read\"\nevery = 4\ndo = \"drop\"");
        assert_eq!(which(&rules, On::Open, "a", 9), [0; 0]);
        assert_eq!(which(&rules, On::Read, "a", 9), [3, 4, 8]);
    }

    #[test]
    fn the_first_that_applies() {
        let rules = rules("[[rule]]\non = \"any\"\nimage = \"a\"\ndo = \"duplicate\"\n[[rule]]\non = \"open\"\ndo = \"drop\"".replace("duplicate", "drop").as_str());
        assert_eq!(which(&rules, On::Close, "b", 2), [0; 0]);
        assert_eq!(which(&rules, On::Open, "b", 2), [1, 2]);
        assert_eq!(which(&rules, On::Close, "a", 2), [1, 2]);
    }

    #[test]
    fn chance_is_the_seeds() {
        let text = "[[rule]]\non = \"read\"\nchance = 0.5\ndo = \"drop\"";
        let first = which(&rules(text), On::Read, "a", 100);
        assert_eq!(first, which(&rules(text), On::Read, "a", 100));
        assert!((30..70).contains(&first.len()), "{first:?}");
    }
}
