// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd doctor`: what it takes to serve images, and what of it is missing here.
//!
//! Nothing is changed, and the device is not opened: to open it is to keep others from it. In the cache's
//! directory a file without a name is written, which is gone at once.

mod cache;
mod kernel;
mod worker;

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use cachefiles_proto::Device;
use rustix::process::Resource;
use serde::Serialize;

use crate::cli;
use crate::cli::DEFAULT_RUN_DIR;
use crate::config::file::ConfigFile;
use crate::rundir;
use crate::source::names::SourceList;

/// Open files that are enough for a hundred images with a few blobs; each blob takes two.
const ENOUGH_FILES: u64 = 1024;

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Good,
    /// Works, but not as well as it could, or not yet.
    Note,
    /// Nothing can be served.
    Bad,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Good, found, None)
    }

    fn note(name: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self::new(name, Verdict::Note, found, Some(advice.to_owned()))
    }

    fn bad(name: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self::new(name, Verdict::Bad, found, Some(advice.to_owned()))
    }

    fn new(
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        Check {
            name,
            verdict,
            found: found.into(),
            advice,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        writeln!(f, "{mark} {:<14} {}", self.name, self.found)?;
        if let Some(advice) = &self.advice {
            writeln!(f, "     {:<14} -> {advice}", "")?;
        }
        Ok(())
    }
}

/// Looks at everything, and prints it; says whether nothing is bad.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn run(args: &cli::Doctor) -> anyhow::Result<bool> {
    let mut checks = Vec::new();
    let file = match &args.config {
        Some(path) => configuration(path, &mut checks),
        None => ConfigFile::default(),
    };
    let device = args.device.clone().or(file.device);
    let device = device.unwrap_or_else(|| Device::DEFAULT_PATH.into());
    let run_dir = args.run_dir.clone().or(file.run_dir);
    let run_dir = run_dir.unwrap_or_else(|| DEFAULT_RUN_DIR.into());
    let uname = rustix::system::uname();
    let system = kernel::System {
        root: Path::new("/"),
        release: &uname.release().to_string_lossy(),
    };
    checks.push(system.erofs());
    checks.push(system.module());
    checks.push(device_node(&device));
    checks.push(rights());
    checks.push(holders(&device, &run_dir));
    checks.push(open_files());
    let user = file.user.as_deref();
    checks.push(worker::look_at(
        user,
        file.sandbox,
        file.source.as_deref(),
        &file.sources,
    ));
    match args.cache.clone().or(file.cache) {
        Some(cache) => checks.extend(cache::look_at(&cache)),
        None => checks.push(Check::note(
            "cache",
            "not looked at",
            "give --cache DIR, or --config FILE",
        )),
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &checks)?;
        writeln!(out)?;
    } else {
        for check in &checks {
            write!(out, "{check}")?;
        }
    }
    Ok(checks.iter().all(|check| check.verdict != Verdict::Bad))
}

fn configuration(path: &Path, checks: &mut Vec<Check>) -> ConfigFile {
    let file = match ConfigFile::load(path) {
        Ok(file) => file,
        Err(error) => {
            let advice = "compare it with the example, ondemandd.toml";
            checks.push(Check::bad("configuration", format!("{error:#}"), advice));
            return ConfigFile::default();
        }
    };
    let list = SourceList {
        default: None,
        named: file.sources.clone().into_iter().collect(),
    };
    let looked_at = match list.named.is_empty() {
        true => Ok(list),
        false => list.check().and_then(|()| list.prepared()),
    };
    checks.push(match looked_at {
        Ok(_) => Check::good("configuration", path.display().to_string()),
        Err(error) => Check::bad(
            "configuration",
            format!("{error:#}"),
            "the daemon would not start with it",
        ),
    });
    file
}

fn device_node(path: &Path) -> Check {
    let found = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_char_device() => {
            Check::good("device", found.to_string())
        }
        Ok(_) => Check::bad(
            "device",
            format!("{found} is no device"),
            "remove it, and load the module again",
        ),
        Err(error) => Check::bad(
            "device",
            format!("{found}: {error}"),
            "load the module; if it was loaded with device_name=, give --device",
        ),
    }
}

fn rights() -> Check {
    if rustix::process::geteuid().is_root() {
        return Check::good("rights", "root");
    }
    Check::bad(
        "rights",
        "not root",
        "the device takes CAP_SYS_ADMIN in the first user namespace; run as root",
    )
}

/// Processes that have the device open.
fn holders(device: &Path, run_dir: &Path) -> Check {
    let name = "held by";
    let keeper = rundir::is_in_use(run_dir).unwrap_or(false);
    let holders = match processes_with(device) {
        Ok(holders) => holders,
        Err(error) => return Check::note(name, format!("unknown: {error}"), "run as root"),
    };
    if holders.is_empty() && keeper {
        let found = format!("nobody, though a keeper uses {}", run_dir.display());
        return Check::note(
            name,
            found,
            "it may have another device, or not be ready yet",
        );
    }
    if holders.is_empty() {
        return Check::good(name, "nobody: a daemon can start");
    }
    let found = holders.join(", ");
    if keeper {
        return Check::good(name, found);
    }
    let advice =
        "one daemon at a time; if none of these is one, end them, or go on with --take-over";
    Check::note(name, found, advice)
}

fn processes_with(device: &Path) -> std::io::Result<Vec<String>> {
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc")? {
        let path = process?.path();
        let Some(pid) = path.file_name().and_then(|pid| pid.to_str()) else {
            continue;
        };
        if pid.parse::<u32>().is_err() {
            continue;
        }
        // A process that ends meanwhile holds nothing.
        let Ok(files) = fs::read_dir(path.join("fd")) else {
            continue;
        };
        let links = files.flatten().map(|file| fs::read_link(file.path()));
        if links.flatten().any(|target| target == device) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            holders.push(format!("{} ({pid})", name.trim_end().escape_debug()));
        }
    }
    Ok(holders)
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(Resource::Nofile).maximum;
    let found = limit.map_or("no limit".to_owned(), |limit| format!("{limit} at most"));
    if limit.is_none_or(|limit| limit >= ENOUGH_FILES) {
        return Check::good("open files", found);
    }
    Check::note(
        "open files",
        found,
        "each image and each blob takes two; raise the hard limit (LimitNOFILE=, ulimit -Hn)",
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn holders_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = fs::canonicalize(file.path()).unwrap();
        let holders = processes_with(&path).unwrap();
        let own = format!("({})", std::process::id());
        assert!(
            holders.iter().any(|holder| holder.contains(&own)),
            "{holders:?}"
        );
        assert!(processes_with(Path::new("/nonexistent"))
            .unwrap()
            .is_empty());
    }

    #[test]
    fn what_is_no_device_is_told() {
        assert_eq!(device_node(Path::new("/dev/null")).verdict, Verdict::Good);
        assert_eq!(device_node(Path::new("/")).verdict, Verdict::Bad);
        let check = device_node(Path::new("/dev/nonexistent"));
        assert_eq!(check.verdict, Verdict::Bad);
        let text = check.to_string();
        assert!(
            text.starts_with("BAD  device") && text.contains("-> load"),
            "{text}"
        );
    }

    #[test]
    fn a_wrong_configuration_is_a_line() {
        let root = tempfile::tempdir().unwrap();
        let path: PathBuf = root.path().join("c.toml");
        fs::write(
            &path,
            "cache = '/c'\n[sources.a]\nkind = 'directory'\npath = '/nonexistent'\n",
        )
        .unwrap();
        let mut checks = Vec::new();
        let file = configuration(&path, &mut checks);
        assert_eq!(file.cache, Some("/c".into()));
        assert_eq!(checks[0].verdict, Verdict::Bad);
        assert!(
            checks[0].found.contains("/nonexistent"),
            "{}",
            checks[0].found
        );
    }
}
