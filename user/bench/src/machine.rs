// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where it was measured, and with what.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

/// What the figures depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The kernel's release and version.
    pub(crate) kernel: String,
    /// The name of its build directory, which holds a hash of its configuration.
    pub(crate) kernel_build: String,
    /// The commit of this repository.
    pub(crate) commit: String,
    /// The processors' name: it tells whether they are emulated.
    pub(crate) processor: String,
    /// How many there are.
    pub(crate) processors: usize,
    /// Memory in KiB.
    pub(crate) memory_kib: u64,
    /// What `modinfo` says of each module.
    pub(crate) modules: BTreeMap<String, BTreeMap<String, String>>,
}

impl Machine {
    /// This one; `modules` are files.
    ///
    /// # Errors
    ///
    /// `/proc` or a module cannot be read.
    pub(crate) fn here(commit: &str, kernel_build: &str, modules: &[&Path]) -> Result<Self> {
        let uname = rustix::system::uname();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let processor = cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == "model name");
        Ok(Machine {
            kernel: format!(
                "{} {}",
                uname.release().to_string_lossy(),
                uname.version().to_string_lossy()
            ),
            kernel_build: kernel_build.to_owned(),
            commit: commit.to_owned(),
            processor: processor.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            processors: available_parallelism()?.get(),
            memory_kib: meminfo("MemTotal")?,
            modules: modules
                .iter()
                .map(|file| Ok((name(file), modinfo(file)?)))
                .collect::<Result<_>>()?,
        })
    }
}

/// The name of a module's file, without its end.
pub(crate) fn name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default();
    stem.to_string_lossy().replace('-', "_")
}

fn modinfo(file: &Path) -> Result<BTreeMap<String, String>> {
    let output = Command::new("modinfo").arg(file).output()?;
    ensure!(output.status.success(), "modinfo {}", file.display());
    let mut fields = parse_modinfo(&String::from_utf8_lossy(&output.stdout));
    // Where it lay says nothing about it.
    fields.remove("filename");
    let sum = Command::new("sha256sum").arg(file).output()?;
    let sum = String::from_utf8_lossy(&sum.stdout);
    let sum = sum.split_whitespace().next().unwrap_or_default();
    fields.insert("sha256".to_owned(), sum.to_owned());
    Ok(fields)
}

fn parse_modinfo(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// A line of `/proc/meminfo`, in KiB.
///
/// # Errors
///
/// There is no such line.
pub(crate) fn meminfo(name: &str) -> Result<u64> {
    parse_meminfo(&fs::read_to_string("/proc/meminfo")?, name)
        .with_context(|| format!("no {name} in /proc/meminfo"))
}

fn parse_meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_meminfo_are_found_by_their_whole_name() {
        let text = "MemTotal:        2013028 kB\nSReclaimable:   7 kB\nSlab:  12 kB\nHuge:  3\n";
        assert_eq!(parse_meminfo(text, "MemTotal"), Some(2_013_028));
        assert_eq!(parse_meminfo(text, "Slab"), Some(12));
        assert_eq!(parse_meminfo(text, "Huge"), Some(3));
        assert_eq!(parse_meminfo(text, "Mem"), None);
    }

    #[test]
    fn modinfo_is_keys_and_values() {
        let fields = parse_modinfo("license:        GPL\nvermagic:       6.12 SMP: yes\n\n");
        assert_eq!(fields["license"], "GPL");
        assert_eq!(fields["vermagic"], "6.12 SMP: yes");
        assert_eq!(name(Path::new("/a/cachefiles-x.ko")), "cachefiles_x");
    }
}
