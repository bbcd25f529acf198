// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd`: see the library's documentation.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use ondemandd::cli::Cli;
use ondemandd::cli::Command;
use ondemandd::config::settings::Settings;
use ondemandd::doctor;
use ondemandd::evict;
use ondemandd::generate;
use ondemandd::handover::EXIT_CACHE_DEAD;
use ondemandd::keeper;
use ondemandd::logging;
use ondemandd::manifest;
use ondemandd::mount;
use ondemandd::prefetch;
use ondemandd::scrub;
use ondemandd::stats;
use ondemandd::status;
use ondemandd::takeover::Outcome;
use ondemandd::top;
use ondemandd::upgrade;
use ondemandd::worker;
use tracing::error;
use tracing::info;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The daemon's configuration may say what the log looks like.
    let settings = match &cli.command {
        Command::Serve(args) => Some(Settings::new(args, cli.log_format)),
        _ => None,
    };
    let format = match &settings {
        Some(Ok(settings)) => settings.log_format,
        _ => cli.log_format.unwrap_or_default(),
    };
    let colours = std::io::stderr().is_terminal();
    if let Err(error) = logging::start(&cli.log, format, std::io::stderr, colours) {
        eprintln!("ondemandd: {error:#}");
        return ExitCode::FAILURE;
    }
    if let Some(settings) = settings {
        return end(settings.and_then(|settings| keeper::run(&settings, &cli.log)));
    }
    match &cli.command {
        Command::Serve(_) => unreachable!("it has gone on above"),
        Command::Stats(args) => finish(stats::run(args)),
        Command::Status(args) => finish(status::run(args)),
        Command::Top(args) => finish(top::run(args)),
        Command::Upgrade(args) => finish(upgrade::run(args)),
        Command::Resume => end(keeper::resume()),
        Command::Mount(args) => finish(mount::mount(args)),
        Command::Umount(args) => finish(mount::umount(args)),
        Command::Prefetch(args) => finish(prefetch::run(args)),
        Command::Evict(args) => finish(evict::command::run(args)),
        Command::Scrub(args) => match scrub::run(args) {
            Ok(end) => ExitCode::from(end as u8),
            Err(error) => finish(Err(error)),
        },
        Command::Doctor(args) => match doctor::run(args) {
            Ok(false) => ExitCode::FAILURE,
            other => finish(other.map(drop)),
        },
        Command::Generate(what) => finish(generate::run(what)),
        Command::Manifest(args) => finish(manifest::run(args)),
        Command::Worker(args) => match worker::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                error!(error = format!("{error:#}"), "worker ends");
                ExitCode::from(error.exit_status())
            }
        },
    }
}

/// How a keeper ends.
fn end(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Stopped) => {
            info!("keeper ends");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Stuck) => {
            error!("the worker does not end; the cache lives until it does");
            ExitCode::FAILURE
        }
        Ok(Outcome::CacheDead) => {
            error!("the cache is dead; the kernel's log says why");
            ExitCode::from(EXIT_CACHE_DEAD)
        }
        Err(error) => fail(&error),
    }
}

/// How a command ends that a person has typed, and not the daemon with its log.
fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ondemandd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    error!(error = format!("{error:#}"), "failed");
    ExitCode::FAILURE
}
