// SPDX-License-Identifier: MIT OR Apache-2.0

//! Daemons that answer wrongly, or die while they answer.

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;

use crate::harness::mock::Reader;
use crate::harness::Context;
use crate::harness::Stage;
use crate::harness::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "mockd_dies_at_every_point",
        "a message that is lost, or wrong data, if its daemon dies at a certain point",
        dies_at_every_point,
    )
    .within(180),
    Test::new(
        "mockd_dies_at_every_point_lz4",
        "the same with compressed data, whose parts EROFS asks for together",
        dies_at_every_point_lz4,
    )
    .within(180),
    Test::new(
        "mockd_drops_then_dies",
        "a message that was dropped and does not come again after its daemon died",
        drops_then_dies,
    )
    .within(180),
    Test::new(
        "mockd_answers_twice",
        "a second answer that is taken, for the same message or another one",
        answers_twice,
    )
    .within(180),
    Test::new(
        "mockd_wrong_ids",
        "an answer that is taken for a message that it does not name",
        wrong_ids,
    )
    .within(180),
    Test::new(
        "mockd_wrong_sizes_of_data",
        "wrong data where a daemon wrote less than was asked for, or more",
        wrong_sizes_of_data,
    )
    .within(180),
    Test::new(
        "mockd_wrong_sizes_of_objects",
        "a reader that hangs, or reads beyond the end, if a reopen tells another size",
        wrong_sizes_of_objects,
    )
    .within(180),
    Test::new(
        "mockd_answers_errors",
        "an error that does not reach the reader, or an object that stays failed",
        answers_errors,
    )
    .within(180),
    Test::new(
        "mockd_closes_early",
        "a message that is lost because its file was closed before or after the answer",
        closes_early,
    )
    .within(180),
    Test::new(
        "mockd_late_answers",
        "messages that are mixed up if four threads answer in another order",
        late_answers,
    )
    .within(180),
    Test::new(
        "mockd_open_answered_by_another",
        "READs that are lost if they come before the daemon itself has answered the OPEN",
        open_answered_by_another,
    )
    .within(180),
];

/// How much most readers read, in bytes: 32 READs.
const PART: usize = 128 << 10;

/// A rule, as the script has it.
fn rule(on: &str, when: &str, what: &str) -> String {
    format!("[[rule]]\non = \"{on}\"\n{when}\ndo = {what}\n")
}

/// Where a daemon dies, and with which message of its life.
const POINTS: [(&str, &str, u32); 10] = [
    ("open", "after-read", 1),
    ("open", "before-copen", 1),
    ("open", "after-copen", 1),
    ("open", "after-copen", 2),
    ("read", "after-read", 1),
    ("read", "before-fill", 2),
    ("read", "mid-fill", 1),
    ("read", "before-complete", 1),
    ("read", "after-complete", 3),
    ("read", "mid-fill", 4),
];

fn dies_at(stage: &Stage<'_>, readers: Vec<Reader>) -> Result<()> {
    for (on, point, nth) in POINTS {
        let script = rule(
            on,
            &format!("nth = {nth}"),
            &format!("{{ die = \"{point}\" }}"),
        );
        let mut mock = stage.mock(&script)?;
        mock.died().with_context(|| script.clone())?;
        ensure!(mock.said(": dies ")?, "it was killed by somebody else");
    }
    ensure!(readers[0].waits()?, "the first reader did not wait");
    stage.finish(readers)
}

fn dies_at_every_point(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin"])?;
    let readers = vec![
        stage.reader("plain", 0, PART)?,
        stage.reader("twin", 0, PART)?,
    ];
    dies_at(&stage, readers)
}

fn dies_at_every_point_lz4(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "lz4"])?;
    let readers = vec![
        stage.reader("plain", 0, PART)?,
        stage.reader("lz4", 0, usize::MAX)?,
    ];
    dies_at(&stage, readers)
}

fn drops_then_dies(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin"])?;
    let readers = vec![
        stage.reader("plain", 0, PART)?,
        stage.reader("twin", 0, PART)?,
    ];
    for script in [
        rule("open", "", "\"drop\""),
        rule("read", "", "\"drop\""),
        rule("read", "nth = 3", "\"drop\""),
        rule("open", "nth = 2", "\"drop\""),
    ] {
        let mut mock = stage.mock(&script)?;
        mock.until_said(": Drop")?;
        mock.end()?;
    }
    for reader in &readers {
        ensure!(reader.waits()?, "{} did not wait", reader.task.what());
    }
    stage.finish(readers)
}

fn answers_twice(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin"])?;
    let mut script = rule("open", "", "\"duplicate\"");
    script += &rule("read", "", "\"duplicate\"");
    let mock = stage.mock(&script)?;
    let readers = vec![
        stage.reader("plain", 0, PART)?,
        stage.reader("twin", 0, PART)?,
    ];
    readers.into_iter().try_for_each(Reader::finish)?;
    let log = mock.log()?;
    let refused = log.lines().filter(|line| line.ends_with("(os error 22)"));
    let twice = log.lines().filter(|line| line.ends_with(": Duplicate"));
    let (refused, twice) = (refused.count(), twice.count());
    ensure!(twice > 50, "{twice} were answered twice");
    ensure!(
        refused == twice,
        "{refused} of {twice} were refused:\n{log}"
    );
    Ok(())
}

fn wrong_ids(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain"])?;
    // One reader: another one's READ might have the number that is tried.
    let reader = stage.reader("plain", 0, PART)?;
    for script in [
        rule("open", "", "\"wrong-id\""),
        rule("read", "nth = 3", "\"wrong-id\""),
    ] {
        let mut mock = stage.mock(&script)?;
        mock.until_said(": WrongId")?;
        // Each of the four is refused before it goes on.
        let refused = || {
            let log = mock.log()?;
            let refused = log.lines().filter(|line| line.ends_with("(os error 22)"));
            Ok(refused.count() == 4)
        };
        crate::harness::eventually("four answers are refused", crate::harness::SOON, refused)?;
        ensure!(reader.waits()?, "the reader got an answer");
        mock.end()?;
    }
    stage.finish([reader])
}

fn wrong_sizes_of_data(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin", "lz4"])?;
    let mut script = rule("read", "every = 3", "{ wrong-size = -4096 }");
    script += &rule("read", "every = 5", "{ wrong-size = 65536 }");
    let mock = stage.mock(&script)?;
    // Of a single block nothing is left: such a read fails, and is tried again.
    let readers = vec![
        stage.fast_reader("plain", 0, usize::MAX)?,
        stage.insisting_reader("twin", PART)?,
        stage.insisting_reader("lz4", 4 * PART)?,
    ];
    readers.into_iter().try_for_each(Reader::finish)?;
    for part in [": WrongSize(-4096)", ": WrongSize(65536)"] {
        ensure!(mock.said(part)?, "never {part}");
    }
    Ok(())
}

fn wrong_sizes_of_objects(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin"])?;
    for (round, more) in [-4096, 1, i64::MAX].iter().enumerate() {
        let script = rule("open", "", &format!("{{ wrong-size = {more} }}"));
        let mut mock = stage.mock(&script)?;
        let at = (round + 1) * 65536;
        stage.reader("plain", at, 4096)?.fails()?;
        stage.reader("twin", at, 4096)?.fails()?;
        // The readers have the error before mockd has its own, which it then tells.
        mock.until_said("copen")?;
        mock.end()?;
    }
    let readers = vec![
        stage.reader("plain", 0, PART)?,
        stage.reader("twin", 0, PART)?,
    ];
    stage.finish(readers)
}

fn answers_errors(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain"])?;
    for (round, errno) in [2, 5, 11, 4095].iter().enumerate() {
        let script = rule("open", "", &format!("{{ errno = {errno} }}"));
        let mut mock = stage.mock(&script)?;
        stage.reader("plain", round * 65536, 8192)?.fails()?;
        mock.end()?;
    }
    let script = rule("read", "", "{ errno = 5 }");
    let mut mock = stage.mock(&script)?;
    stage.reader("plain", 1 << 19, 8192)?.fails()?;
    stage.fast_reader("plain", 1 << 19, 1 << 17)?.fails()?;
    mock.end()?;
    let reader = stage.reader("plain", 0, PART)?;
    stage.finish([reader])
}

fn closes_early(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin"])?;
    let mut script = rule("open", "nth = 2", "{ close-early = \"before\" }");
    script += &rule("open", "every = 3", "{ close-early = \"after\" }");
    script += &rule("read", "every = 7", "{ close-early = \"before\" }");
    script += &rule("read", "every = 10", "{ close-early = \"after\" }");
    for threads in [1, 3] {
        let mock = stage.mock(&format!("threads = {threads}\n{script}"))?;
        // This daemon alone brings them to their end.
        let readers = match threads {
            1 => [stage.insisting_reader("plain", PART)?],
            _ => [stage.insisting_reader("twin", PART)?],
        };
        readers
            .into_iter()
            .try_for_each(Reader::finish)
            .with_context(|| mock.tail())?;
        for part in ["OPEN", "READ"] {
            for side in ["Before", "After"] {
                let log = mock.log()?;
                let said = |line: &str| {
                    line.starts_with(part) && line.ends_with(&format!(": CloseEarly({side})"))
                };
                ensure!(log.lines().any(said), "no {part} was closed {side}:\n{log}");
            }
        }
    }
    Ok(())
}

fn late_answers(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin"])?;
    let mut script = String::from("threads = 4\nseed = 1\n");
    script += &rule("read", "chance = 0.2", "{ delay = 15 }");
    script += &rule("open", "", "{ delay = 15 }");
    let mock = stage.mock(&script)?;
    let readers = vec![
        stage.reader("plain", 0, PART)?,
        stage.reader("plain", PART, PART)?,
        stage.reader("twin", 0, PART)?,
        stage.reader("twin", PART, PART)?,
        stage.fast_reader("plain", 0, 2 * PART)?,
    ];
    readers.into_iter().try_for_each(Reader::finish)?;
    ensure!(mock.said(": delay 15")?, "nothing was late");
    Ok(())
}

fn open_answered_by_another(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain"])?;
    let script = rule("open", "", "{ delay = 2000 }");
    let mock = stage.mock(&format!("threads = 2\n{script}"))?;
    let reader = stage.reader("plain", 0, PART)?;
    mock.until_said(": delay")?;
    let size = t.images.get("plain")?.size;
    let answers = |id: u32| {
        stage
            .device
            .write_bytes(format!("copen {id},{size}").as_bytes())
    };
    ensure!(
        (0..256).any(|id| answers(id).is_ok()),
        "no answer was taken"
    );
    reader.finish().with_context(|| mock.tail())?;
    mock.until_said("copen")
}
