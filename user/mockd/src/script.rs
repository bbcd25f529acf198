// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the daemon may be told to do wrong: a TOML file.
//!
//! ```toml
//! seed = 7                 # of all chance; a random one if it is left out
//! threads = 2              # that read the device, 1 to 64; 1 by default
//! pollers = 1              # threads that do nothing but poll, 0 to 64
//! restore = true           # whether to begin with `restore`; yes by default
//! mount-namespace = true   # whether to have one of its own
//!
//! [[rule]]                 # about messages; the first rule that applies counts
//! on = "read"              # open, read, close, or any
//! image = "plain"          # of one image only
//! nth = 3                  # the third of these messages; or every = 3, or chance = 0.1; else all
//! do = { die = "mid-fill" }
//!
//! [[tick]]                 # beside the messages, in a thread of its own
//! ms = 20                  # pause
//! do = { restore = 2 }
//! ```

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// The most threads of one kind.
const MOST_THREADS: usize = 64;
/// The largest error number that fits into an answer.
const MOST_ERRNO: u16 = 4095;

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Script {
    /// The seed of all chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Threads that read the device.
    pub threads: usize,
    /// Threads that poll it and do nothing else.
    pub pollers: usize,
    /// Whether the first thing that is written is `restore`.
    pub restore: bool,
    /// Whether the process has a mount namespace of its own.
    pub mount_namespace: bool,
    /// What is done wrong with messages.
    #[serde(rename = "rule", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What is done beside them.
    #[serde(rename = "tick", skip_serializing_if = "Vec::is_empty")]
    pub ticks: Vec<Tick>,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            seed: None,
            threads: 1,
            pollers: 0,
            restore: true,
            mount_namespace: false,
            rules: Vec::new(),
            ticks: Vec::new(),
        }
    }
}

/// Something that is done when certain messages come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which kind of message.
    pub on: On,
    /// Of which image; of all if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Only with the message of this number, from 1 on, of those that the rule is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// Only with each message of so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Only with this probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// What is done.
    #[serde(rename = "do")]
    pub action: Action,
}

/// Something that is done again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tick {
    /// The pause before each time, in milliseconds; 0 leaves the processor to others once.
    pub ms: u64,
    /// What is done.
    #[serde(rename = "do")]
    pub action: Action,
}

/// The messages that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// `CACHEFILES_OP_OPEN`
    Open,
    /// `CACHEFILES_OP_READ`
    Read,
    /// `CACHEFILES_OP_CLOSE`
    Close,
    /// All of them.
    Any,
}

/// What can be done wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The message is never answered, its file stays open.
    Drop,
    /// So many milliseconds pass before the message is looked at; the thread does nothing else.
    Delay(u64),
    /// It is answered twice.
    Duplicate,
    /// It is answered under other numbers, and never under its own.
    WrongId,
    /// OPEN: the size is wrong by so many bytes. READ: so many bytes more are written than asked
    /// for, or fewer.
    WrongSize(i64),
    /// OPEN: this error number. READ, which knows no error: completed without data.
    Errno(u16),
    /// The file is closed before or after the answer. A READ is not answered then.
    CloseEarly(Side),
    /// SIGKILL, by its own hand.
    Die(Point),
    /// A child is forked that holds descriptors open for a minute.
    ForkKeep(Kept),
    /// For so many milliseconds the process gets no new descriptor.
    ExhaustFds(u64),
    /// `restore`, so many times in a row.
    Restore(u32),
    /// So many writes and reads of the device that make no sense.
    Garbage(u32),
    /// An OPEN or a READ with a number below this is answered, whether there is one or not.
    Noise(u32),
    /// All anonymous files are closed, while other threads use them.
    CloseAll,
    /// A block of some object is written, and its holes are looked for, unasked.
    Poke,
    /// This file of the store is culled.
    Cull(PathBuf),
    /// This file of the store is asked about.
    Inuse(PathBuf),
}

/// On which side of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Before it.
    Before,
    /// After it.
    After,
}

/// A point in the life of a message at which the daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// Any message: it was read, and nothing was done about it.
    AfterRead,
    /// OPEN: all is ready for the answer.
    BeforeCopen,
    /// OPEN: it was answered.
    AfterCopen,
    /// READ: nothing was written.
    BeforeFill,
    /// READ: half of the blocks were written.
    MidFill,
    /// READ: all was written.
    BeforeComplete,
    /// READ: it was answered.
    AfterComplete,
}

/// What a forked child holds open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// The anonymous files.
    Files,
    /// The device.
    Device,
    /// All of it.
    Both,
}

/// Why a script is none.
#[derive(Debug, Error)]
pub enum ScriptError {
    /// It is no TOML, or has a word that does not belong there.
    #[error(transparent)]
    Syntax(#[from] toml::de::Error),
    /// A number outside of its range.
    #[error("{0}")]
    Range(&'static str),
    /// A rule that cannot apply.
    #[error("rule {0}: {1}")]
    Rule(usize, &'static str),
    /// Something that only a message can bring about.
    #[error("tick {0}: this needs a message")]
    Tick(usize),
}

impl Action {
    /// Whether it is done beside the answer, which is right all the same.
    #[must_use]
    pub fn beside(&self) -> bool {
        matches!(
            self,
            Action::ForkKeep(_)
                | Action::ExhaustFds(_)
                | Action::Restore(_)
                | Action::Garbage(_)
                | Action::Noise(_)
                | Action::CloseAll
                | Action::Poke
                | Action::Cull(_)
                | Action::Inuse(_)
        )
    }

    /// Whether it can be done with such a message.
    fn fits(&self, on: On) -> bool {
        use Point as P;
        match self {
            Action::Duplicate | Action::WrongId | Action::WrongSize(_) | Action::Errno(_) => {
                matches!(on, On::Open | On::Read)
            }
            Action::CloseEarly(_) => matches!(on, On::Open | On::Read),
            Action::Die(P::AfterRead) => true,
            Action::Die(P::BeforeCopen | P::AfterCopen) => on == On::Open,
            Action::Die(P::BeforeFill | P::MidFill | P::BeforeComplete | P::AfterComplete) => {
                on == On::Read
            }
            _ => true,
        }
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    ///
    /// A [`ScriptError`], which says where and what.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let script: Script = toml::from_str(text)?;
        script.check()?;
        Ok(script)
    }

    /// The text of it, which [`Script::parse`] reads again.
    ///
    /// # Errors
    ///
    /// None is known: TOML has room for all that a script holds but a seed above `i64::MAX`.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    fn check(&self) -> Result<(), ScriptError> {
        if !(1..=MOST_THREADS).contains(&self.threads) {
            return Err(ScriptError::Range("threads: 1 to 64"));
        }
        if self.pollers > MOST_THREADS {
            return Err(ScriptError::Range("pollers: 0 to 64"));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check()
                .map_err(|what| ScriptError::Rule(index + 1, what))?;
        }
        for (index, tick) in self.ticks.iter().enumerate() {
            if !tick.action.beside() {
                return Err(ScriptError::Tick(index + 1));
            }
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), &'static str> {
        let whens = [
            self.nth.is_some(),
            self.every.is_some(),
            self.chance.is_some(),
        ];
        if whens.iter().filter(|given| **given).count() > 1 {
            return Err("one of nth, every and chance is enough");
        }
        if self.nth == Some(0) || self.every == Some(0) {
            return Err("nth and every begin with 1");
        }
        if self
            .chance
            .is_some_and(|chance| !(0.0..=1.0).contains(&chance))
        {
            return Err("chance is from 0 to 1");
        }
        if matches!(self.action, Action::Errno(errno) if !(1..=MOST_ERRNO).contains(&errno)) {
            return Err("errno is from 1 to 4095");
        }
        if !self.action.fits(self.on) {
            return Err("this cannot be done with such a message");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_one() {
        let text: String = include_str!("script.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| format!("{}\n", line.trim_start_matches("//!")))
            .collect();
        let script = Script::parse(&text).unwrap();
        assert_eq!(script.seed, Some(7));
        assert_eq!(script.rules[0].action, Action::Die(Point::MidFill));
        assert_eq!(script.ticks[0].action, Action::Restore(2));
        let again = Script::parse(&script.to_toml().unwrap()).unwrap();
        assert_eq!(again, script);
    }

    #[test]
    fn nothing_is_a_daemon_without_faults() {
        assert_eq!(Script::parse("").unwrap(), Script::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        let rule = |rest: &str| format!("[[rule]]\n{rest}");
        for (text, reason) in [
            ("thread = 2".to_owned(), "unknown field `thread`"),
            ("threads = 0".to_owned(), "1 to 64"),
            ("pollers = 65".to_owned(), "0 to 64"),
            (rule("on = \"read\""), "missing field `do`"),
            (
                rule("on = \"reed\"\ndo = \"drop\""),
                "unknown variant `reed`",
            ),
            (
                rule("on = \"read\"\ndo = \"dorp\""),
                "unknown variant `dorp`",
            ),
            (
                rule("on = \"read\"\nnth = 1\nevery = 1\ndo = \"drop\""),
                "rule 1: one of",
            ),
            (
                rule("on = \"read\"\nnth = 0\ndo = \"drop\""),
                "begin with 1",
            ),
            (rule("on = \"any\"\nchance = 1.5\ndo = \"drop\""), "0 to 1"),
            (rule("on = \"open\"\ndo = { errno = 0 }"), "1 to 4095"),
            (rule("on = \"close\"\ndo = \"duplicate\""), "cannot be done"),
            (
                rule("on = \"open\"\ndo = { die = \"mid-fill\" }"),
                "cannot be done",
            ),
            ("[[tick]]\nms = 1\ndo = \"drop\"".to_owned(), "tick 1"),
        ] {
            let error = Script::parse(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
