// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an OPEN is answered, by what the record says of the object.
//!
//! | who knows versions | the record has | a first opening | a reopening |
//! |---|---|---|---|
//! | the kernel | the same | answered | answered |
//! | | another, or nothing | noted, answered: the kernel drops what it has | noted, answered: ESTALE from the kernel |
//! | the record alone | the same, and sole | answered | answered |
//! | | the same, and others | the file is made stale, noted, answered | refused |
//! | | another | the file is made stale, noted, answered | refused |
//! | | nothing | noted, answered | (there is none) |
//!
//! To be refused is ESTALE. The C module sends an OPEN that failed again, for as long as its reader waits, which is
//! for ever; so there it is answered, with the size that it had, and gets no data.
//!
//! A file that is made stale is replaced by the kernel when the OPEN is answered. It cannot be culled: the kernel
//! has the file of an OPEN in use. If it is replaced or not, it is stale on the disk before the record says that
//! the version is another one.

use super::Carried;
use super::Entry;
use crate::source::token::Identity;

/// Who keeps versions apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// The kernel, by the token that it is given.
    Kernel,
    /// It knows nothing of tokens.
    Record,
}

/// What an OPEN is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opening {
    /// The kernel has not looked at the stored file yet, and will when the OPEN is answered.
    First,
    /// It uses one already; or it cannot be told whether it does.
    Again,
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is answered.
    Answer,
    /// This is noted, and then it is answered.
    Note(Entry),
    /// The stored file is made stale, this is noted, and then it is answered.
    Replace(Entry),
    /// It gets no data: the blob has changed, which is described.
    Changed(String),
    /// It gets no data: what is in use is of a version that is not known.
    Unknown,
}

/// Judges an OPEN of a blob that is of the version `found` now, and of that size, held against a manifest or not.
#[must_use]
pub fn judge(
    (entry, carried): (Option<&Entry>, Option<Carried>),
    guard: Guard,
    opening: Opening,
    (found, size): (&Identity, u64),
    manifest: bool,
) -> Verdict {
    let noted = |sole| Entry {
        token: found.token,
        size,
        sole,
        manifest,
        what: found.what.clone(),
        changed: None,
    };
    let is_same = entry.is_some_and(|entry| entry.token == found.token);
    let is_sole = entry.is_some_and(|entry| entry.sole);
    match (guard, entry, opening) {
        (_, Some(entry), _) if is_same && (is_sole || guard == Guard::Kernel) => {
            match entry.manifest == manifest {
                true => Verdict::Answer,
                false => Verdict::Note(noted(is_sole)),
            }
        }
        (Guard::Kernel, Some(_), _) => Verdict::Note(noted(false)),
        (Guard::Kernel, None, _) => Verdict::Note(noted(carried.is_none())),
        (Guard::Record, Some(_), Opening::First) => Verdict::Replace(noted(true)),
        (Guard::Record, Some(_), Opening::Again) if is_same => match carried {
            Some(Carried::Old) => Verdict::Answer,
            _ => Verdict::Unknown,
        },
        (Guard::Record, Some(entry), Opening::Again) => {
            Verdict::Changed(change(&entry.what, &found.what))
        }
        (Guard::Record, None, opening) => match (carried, opening) {
            (None, _) => Verdict::Note(noted(true)),
            (Some(_), Opening::First) => Verdict::Replace(noted(true)),
            // It was mounted by a daemon that kept no record: what that one trusted is trusted until it is unmounted.
            (Some(Carried::Old), Opening::Again) => Verdict::Note(noted(false)),
            (Some(Carried::Lost), Opening::Again) => Verdict::Unknown,
        },
    }
}

/// What has changed, for people.
#[must_use]
pub fn change(was: &str, is: &str) -> String {
    format!("was {was}, is {is}")
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
