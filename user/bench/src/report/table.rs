// SPDX-License-Identifier: MIT OR Apache-2.0

//! The report as Markdown.

use std::fmt::Write as _;

use crate::results::End;
use crate::results::Results;
use crate::scenario::Better;
use crate::stats::Noise;
use crate::stats::Range;
use crate::stats::NOISY;

use super::rows::Row;

/// A number to three digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), number)
}

fn from_to(range: Option<Range>) -> String {
    range.map_or_else(
        || "–".to_owned(),
        |range| format!("{} – {}", number(range.min), number(range.max)),
    )
}

/// A part of a whole in per cent.
fn percent(part: f64) -> String {
    format!("{:.0} %", 100.0 * part)
}

/// What was measured, and where.
fn heading(results: &Results) -> String {
    let machine = &results.machine;
    format!(
        "Linux {}, {}; commit {}; {}, {} processors, {} MiB; {} pairs{}; the daemon fills {}.\n",
        machine.kernel,
        machine.kernel_build,
        machine.commit,
        machine.processor,
        machine.processors,
        machine.memory_kib >> 10,
        results.pairs(),
        if results.quick { ", small sizes" } else { "" },
        match results.fill.to_string().as_str() {
            "asked" => "what is asked".to_owned(),
            bytes => format!("windows of {bytes} bytes"),
        },
    )
}

fn remark(row: &Row) -> String {
    let mut remarks = row.ends.clone();
    match row.noise {
        Noise::Noisy => remarks.insert(0, "**noisy**".to_owned()),
        Noise::Unknown if row.c.is_some() => remarks.insert(0, "one run".to_owned()),
        Noise::Unknown | Noise::Quiet => {}
    }
    remarks.extend(row.verdict().map(str::to_owned));
    remarks.join("; ")
}

/// The whole report.
pub(super) fn markdown(results: &Results, rows: &[Row]) -> String {
    let mut text = heading(results);
    text += "\n| scenario | figure | | mode | ours / C | min – max | C / C | C's spread | C / limit | ours / limit | |\n\
             |---|---|---|---|--:|--:|--:|--:|--:|--:|---|\n";
    for row in rows {
        let _ = writeln!(
            text,
            "| {}: {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.scenario,
            row.scenario.title(),
            row.figure.title,
            match row.figure.better {
                Better::Higher => "↑",
                Better::Lower => "↓",
            },
            row.mode,
            cell(row.ratio.map(|ratio| ratio.median)),
            from_to(row.ratio),
            from_to(row.control),
            row.c
                .map(|c| c.spread())
                .filter(|spread| spread.is_finite())
                .map_or_else(|| "–".to_owned(), percent),
            cell(row.c_of_limit),
            cell(row.ours_of_limit),
            remark(row),
        );
    }
    text += "\nIn themselves, the median of all pairs:\n\n| scenario | figure | C | ours |\n|---|---|--:|--:|\n";
    for row in rows.iter().filter(|row| row.figure.plain) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            row.scenario,
            row.figure.title,
            cell(row.c.map(|c| c.median)),
            cell(row.ours.map(|ours| ours.median)),
        );
    }
    for remark in &results.remarks {
        let _ = writeln!(text, "\n{remark}");
    }
    let _ = writeln!(text, "\n{}", summary(rows));
    text
}

/// How many figures there are, and which of them say nothing.
pub(super) fn summary(rows: &[Row]) -> String {
    let compared: Vec<_> = rows.iter().filter(|row| row.ratio.is_some()).collect();
    let noisy: Vec<_> = compared
        .iter()
        .filter(|row| row.says_nothing())
        .map(|row| match row.mode.is_classic() {
            true => row.name(),
            false => format!("{} ({})", row.name(), row.mode),
        })
        .collect();
    let mut text = format!("{} figures", compared.len());
    if noisy.is_empty() {
        text += ", none of them too noisy to say anything";
    } else {
        let _ = write!(
            text,
            ", {} of them too noisy to say anything (of the C module one run, or runs more than {} apart): {}",
            noisy.len(),
            percent(NOISY),
            noisy.join("; "),
        );
    }
    text
}

/// What this module did that it should not have.
pub(super) fn faults(results: &Results) -> Vec<String> {
    let ours = |run: &&crate::results::Run| run.subject != crate::subject::Subject::C;
    let fault = |run: &crate::results::Run| {
        let how = match &run.end {
            End::Done | End::NotSupported(_) => return None,
            End::Hangs(seconds) => format!("not done within {seconds} s"),
            End::Failed(why) => why.clone(),
        };
        let (who, pair) = (run.subject.name(), run.pair + 1);
        Some(format!(
            "{} pair {pair}, {who} {}: {how}",
            run.scenario, run.mode
        ))
    };
    results.runs.iter().filter(ours).filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::super::rows::rows;
    use super::*;
    use crate::results::tests::fixture;

    #[test]
    fn the_table_tells_ratios_and_noise() {
        let results = fixture();
        let rows = rows(&results);
        let text = markdown(&results, &rows);
        for line in [
            "| s1: cold, sequential | MB/s | ↑ | classic | 2.00 | 1.50 – 2.50 | 1.00 – 1.00 | 0 % | 0.10 | 0.20 | better |",
            "| s1: cold, sequential | MB/s | ↑ | buffered | – | – | 1.00 – 1.00 | 0 % | 0.10 | – | not supported, 1 of 1 runs |",
            "| s8 | poll, with many parked over none | 250 | 1.00 |",
            "a remark",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert!(text.contains("| C hangs (20 s), 1 of 1 runs |"), "{text}");
        assert!(
            summary(&rows).contains("1 of them too noisy to say anything (of the C module one run, or runs more than 25 % apart): s2 p99"),
            "{}",
            summary(&rows)
        );
    }

    #[test]
    fn only_our_faults_are_faults() {
        let mut results = fixture();
        assert!(faults(&results).is_empty());
        for run in &mut results.runs {
            run.end = End::Hangs(20);
        }
        let ours = |run: &&crate::results::Run| run.subject != crate::subject::Subject::C;
        assert_eq!(
            faults(&results).len(),
            results.runs.iter().filter(ours).count()
        );
    }

    #[test]
    fn numbers_have_about_three_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (1.005, "1.00"),
            (12.34, "12.3"),
            (252.4, "252"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
