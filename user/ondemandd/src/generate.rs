// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd generate`: man pages and shell completions, from the command line's own description.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::Cli;
use crate::cli::Generate;

/// Writes what was asked for.
///
/// # Errors
///
/// What the file system says.
pub fn run(what: &Generate) -> anyhow::Result<()> {
    match what {
        Generate::Man { dir } => man(dir),
        Generate::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "ondemandd", &mut text);
            // A reader that has seen enough is no error worth a panic.
            std::io::Write::write_all(&mut std::io::stdout().lock(), &text)
                .context("cannot write to standard output")
        }
    }
}

/// `ondemandd.8`, and `ondemandd-COMMAND.8` for each command that is not hidden.
fn man(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut command = Cli::command();
    command.build();
    page(dir, "ondemandd", command.clone())?;
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name();
        if subcommand.is_hide_set() || name == "help" {
            continue;
        }
        let name = format!("ondemandd-{name}");
        page(dir, &name, subcommand.clone().display_name(&name))?;
    }
    Ok(())
}

fn page(dir: &Path, name: &str, command: clap::Command) -> anyhow::Result<()> {
    let path = dir.join(format!("{name}.8"));
    let cannot = || format!("cannot write {}", path.display());
    let mut file = File::create(&path).with_context(cannot)?;
    clap_mangen::Man::new(command)
        .section("8")
        .render(&mut file)
        .with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("man");
        man(&dir).unwrap();
        for name in [
            "ondemandd",
            "ondemandd-serve",
            "ondemandd-mount",
            "ondemandd-doctor",
        ] {
            let text = std::fs::read_to_string(dir.join(format!("{name}.8"))).unwrap();
            assert!(text.contains(".TH"), "{name}");
            assert!(text.contains(&name.replace('-', "\\-")), "{name}: {text}");
        }
        for hidden in ["worker", "generate"] {
            assert!(!dir.join(format!("ondemandd-{hidden}.8")).exists());
        }
    }

    #[test]
    fn shells_can_complete() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ondemandd", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("--take-over"), "{shell}");
        }
    }
}
