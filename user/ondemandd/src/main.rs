// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd`: see the library's documentation.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use ondemandd::cli;
use ondemandd::cli::Cli;
use ondemandd::cli::Command;
use ondemandd::config::settings::Settings;
use ondemandd::keeper;
use ondemandd::logging;
use ondemandd::manifest;
use ondemandd::stats;
use ondemandd::takeover::Outcome;
use ondemandd::worker;
use tracing::error;
use tracing::info;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let colours = std::io::stderr().is_terminal();
    if let Err(error) = logging::start(&cli.log, std::io::stderr, colours) {
        eprintln!("ondemandd: {error:#}");
        return ExitCode::FAILURE;
    }
    match &cli.command {
        Command::Serve(args) => match serve(args, &cli.log) {
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
                ExitCode::from(worker::EXIT_CACHE_DEAD)
            }
            Err(error) => fail(&error),
        },
        Command::Stats(args) => match stats::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Command::Manifest(args) => match manifest::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Command::Worker(args) => match worker::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                error!(error = format!("{error:#}"), "worker ends");
                ExitCode::from(error.exit_status())
            }
        },
    }
}

fn serve(args: &cli::Serve, log: &str) -> anyhow::Result<Outcome> {
    keeper::run(&Settings::new(args)?, log)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    error!(error = format!("{error:#}"), "failed");
    ExitCode::FAILURE
}
