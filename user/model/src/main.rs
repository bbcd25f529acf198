// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemand-model`: explores every order of events of a small cache and prints what it has visited.
//!
//! Exit status: 0 all properties hold in every situation of every scope; 1 one does not, or a scope was
//! not explored to its end.

use anyhow::ensure;
use anyhow::Result;
use clap::Parser;
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::CellAlignment;
use comfy_table::Table;
use ondemand_model::explore;
use ondemand_model::explore::Options;
use ondemand_model::explore::Violation;
use ondemand_model::scope;
use ondemand_model::Outcome;
use ondemand_model::Scope;
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// Explore every order of events of the on-demand request table.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Also explore the large scopes: unplanned events in pairs.
    #[arg(long)]
    large: bool,
    /// Name the scopes and end.
    #[arg(long)]
    list: bool,
    /// Explore so many scopes at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Give a scope up, as a failure, beyond so many situations (about 100 bytes each).
    #[arg(long, default_value_t = 40_000_000)]
    limit: usize,
    /// Explore these scopes alone.
    names: Vec<String>,
}

fn chosen(cli: &Cli) -> Result<Vec<Scope>> {
    let mut scopes = scope::small();
    if cli.large || cli.list || !cli.names.is_empty() {
        scopes.extend(scope::large());
    }
    if !cli.names.is_empty() {
        for name in &cli.names {
            let known = scopes.iter().any(|scope| scope.name == name);
            ensure!(known, "there is no scope {name:?}: see --list");
        }
        scopes.retain(|scope| cli.names.iter().any(|name| name == scope.name));
    }
    Ok(scopes)
}

/// The budget in words, without what cannot happen.
fn budget(scope: &Scope) -> String {
    let budget = format!("{:?}", scope.budget);
    let inner = budget
        .trim_start_matches("Budget { ")
        .trim_end_matches(" }");
    let parts: Vec<&str> = inner
        .split(", ")
        .filter(|part| !part.ends_with(": 0"))
        .collect();
    parts.join(", ")
}

fn tell(violation: &Violation) {
    println!(
        "  {:?} does not hold: {}",
        violation.property, violation.why
    );
    println!("  after");
    for event in &violation.path {
        println!("    {event}");
    }
    if !violation.cycle.is_empty() {
        println!("  then, for ever");
        for event in &violation.cycle {
            println!("    {event}");
        }
    }
}

/// Explores the scopes, several at a time, in the order that they were given.
fn run(scopes: Vec<Scope>, threads: u8, options: Options) -> Vec<(Scope, Outcome)> {
    let queue = Mutex::new(scopes.into_iter().collect::<VecDeque<_>>());
    let results = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.pop_front();
    thread::scope(|all| {
        for _ in 0..threads {
            all.spawn(|| {
                while let Some(scope) = next() {
                    let outcome = explore(&scope, options);
                    println!(
                        "{}: {} situations in {:.1} s",
                        scope.name,
                        outcome.states,
                        outcome.time.as_secs_f64()
                    );
                    if let Ok(mut results) = results.lock() {
                        results.push((scope, outcome));
                    }
                }
            });
        }
    });
    results.into_inner().unwrap_or_default()
}

fn table(results: &[(Scope, Outcome)]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    table.set_header([
        "scope",
        "objects",
        "threads",
        "budget",
        "situations",
        "steps",
        "serving",
        "depth",
        "seconds",
    ]);
    for (scope, outcome) in results {
        table.add_row([
            scope.name.to_string(),
            scope.objects.to_string(),
            format!("{:?}", scope.threads),
            budget(scope),
            outcome.states.to_string(),
            outcome.steps.to_string(),
            outcome.serving.to_string(),
            outcome.depth.to_string(),
            format!("{:.1}", outcome.time.as_secs_f64()),
        ]);
    }
    for column in 4..9 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let scopes = chosen(&cli)?;
    if cli.list {
        for scope in scopes {
            println!("{}: {:?}, {}", scope.name, scope.threads, budget(&scope));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let start = Instant::now();
    let options = Options {
        limit: cli.limit,
        progress: true,
        ..Options::default()
    };
    let results = run(scopes, cli.threads, options);
    println!("{}", table(&results));
    let mut failed = 0;
    for (scope, outcome) in &results {
        if let Some(violation) = &outcome.violation {
            println!("{}:", scope.name);
            tell(violation);
        } else if !outcome.complete {
            println!("{}: given up, see --limit", scope.name);
        }
        failed += usize::from(!outcome.complete);
    }
    let states: usize = results.iter().map(|(_, outcome)| outcome.states).sum();
    let steps: u64 = results.iter().map(|(_, outcome)| outcome.steps).sum();
    println!(
        "events: scopes={} situations={states} steps={steps}",
        results.len()
    );
    println!(
        "{} scopes, {states} situations, {steps} steps, {failed} failed, {:.0} s",
        results.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(ExitCode::from(u8::from(failed > 0)))
}
