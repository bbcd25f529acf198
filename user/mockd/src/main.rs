// SPDX-License-Identifier: MIT OR Apache-2.0

//! The program `mockd`; see the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match mockd::cli::Options::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mockd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
