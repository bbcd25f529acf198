// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel, its erofs, and the module: what is loaded, and what would be.

use std::fs;
use std::path::{Path, PathBuf};

use super::Check;

/// Ends the version of an erofs that was built with the on-demand mode since the kernel's own lacks it
/// (scripts/kernel/rust-tree); the kernel's own has no version.
const BUILT_FOR_IT: &str = "+ondemand";

/// A machine: where its root directory is, and the release of its kernel.
pub(super) struct System<'a> {
    pub(super) root: &'a Path,
    pub(super) release: &'a str,
}

impl System<'_> {
    /// Empty if the file cannot be read.
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    fn is_loaded(&self, module: &str) -> bool {
        self.root.join("sys/module").join(module).exists()
    }

    /// Where modprobe finds a module, below the directory of the kernel's modules.
    fn installed(&self, module: &str) -> Option<PathBuf> {
        let list = self.read(&format!("lib/modules/{}/modules.dep", self.release));
        let start = format!("{module}.ko");
        list.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, _)| PathBuf::from(path))
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&start))
            })
    }

    /// The mode of the kernel's lockdown, unless it is none.
    fn lockdown(&self) -> Option<String> {
        let modes = self.read("sys/kernel/security/lockdown");
        let (_, rest) = modes.split_once('[')?;
        let (mode, _) = rest.split_once(']')?;
        (mode != "none").then(|| mode.to_owned())
    }

    pub(super) fn erofs(&self) -> Check {
        let name = "kernel";
        let release = self.release;
        let types = self.read("proc/filesystems");
        let known = types
            .lines()
            .any(|line| line.split_whitespace().last() == Some("erofs"));
        let own_lacks_it = self
            .read(&format!("boot/config-{release}"))
            .lines()
            .any(|line| line == "# CONFIG_EROFS_FS_ONDEMAND is not set");
        let installed = self.installed("erofs");
        let replaced = installed
            .as_ref()
            .is_some_and(|path| path.starts_with("updates"));
        let install = "install cachefiles-ondemand-dkms or the modules for this kernel (docs/install.md), which have another one";
        if known {
            let version = self.read("sys/module/erofs/version");
            if !own_lacks_it || version.trim_end().ends_with(BUILT_FOR_IT) {
                return Check::good(name, format!("Linux {release}, knows erofs"));
            }
            let found =
                format!("Linux {release}, its own erofs is loaded, without the on-demand mode");
            let load =
                "unmount what is mounted of it, then `modprobe -r erofs && modprobe erofs`, or reboot";
            return Check::bad(name, found, if replaced { load } else { install });
        }
        if installed.is_none() {
            return Check::bad(
                name,
                format!("Linux {release} without erofs"),
                "use a kernel with CONFIG_EROFS_FS_ONDEMAND",
            );
        }
        if own_lacks_it && !replaced {
            let found = format!("Linux {release}, its erofs is without the on-demand mode");
            return Check::bad(name, found, install);
        }
        Check::note(
            name,
            format!("Linux {release}, erofs is not loaded"),
            "the first mount loads it; or `modprobe erofs`",
        )
    }

    pub(super) fn module(&self) -> Check {
        let name = "module";
        if self.is_loaded("cachefiles_ondemand") {
            return Check::good(name, "cachefiles_ondemand is loaded");
        }
        if self.is_loaded("cachefiles") {
            return Check::note(
                name,
                "the kernel's own cachefiles is loaded",
                "it has no --timeout, --fetch or --fill; load cachefiles_ondemand for these",
            );
        }
        let found = "no cachefiles module is loaded";
        if let Some(mode) = self.lockdown() {
            return Check::bad(
                name,
                format!("{found}; the kernel (lockdown: {mode}) takes signed modules alone"),
                "`modprobe cachefiles_ondemand`; if it is refused, `mokutil --import /var/lib/dkms/mok.pub`, \
                 reboot, and enroll that key",
            );
        }
        Check::bad(name, found, "`modprobe cachefiles_ondemand`")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const RELEASE: &str = "6.12.1";
    const LACKS_IT: (&str, &str) = (
        "boot/config-6.12.1",
        "# CONFIG_EROFS_FS_ONDEMAND is not set\n",
    );
    const DEPENDENCIES: &str = "lib/modules/6.12.1/modules.dep";
    const OWN: (&str, &str) = (
        DEPENDENCIES,
        "kernel/fs/erofs/erofs.ko.xz: kernel/a.ko.xz\n",
    );
    const REPLACED: (&str, &str) = (DEPENDENCIES, "updates/dkms/erofs.ko.xz: kernel/a.ko.xz\n");
    const KNOWN: (&str, &str) = ("proc/filesystems", "nodev\tproc\n\terofs\n");

    fn on(files: &[(&str, &str)], look: impl FnOnce(&System<'_>) -> Check) -> Check {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        look(&System {
            root: root.path(),
            release: RELEASE,
        })
    }

    fn erofs(files: &[(&str, &str)]) -> (Verdict, String) {
        let check = on(files, |system| system.erofs());
        (check.verdict, check.advice.unwrap_or_default())
    }

    #[test]
    fn an_erofs_without_the_on_demand_mode_is_bad() {
        let (verdict, advice) = erofs(&[LACKS_IT, OWN]);
        assert_eq!(verdict, Verdict::Bad);
        assert!(advice.contains("install"), "{advice}");
        let (verdict, advice) = erofs(&[LACKS_IT, OWN, KNOWN]);
        assert_eq!(verdict, Verdict::Bad);
        assert!(advice.contains("install"), "{advice}");
    }

    #[test]
    fn an_installed_erofs_is_to_be_loaded() {
        let (verdict, advice) = erofs(&[LACKS_IT, REPLACED, KNOWN]);
        assert_eq!(verdict, Verdict::Bad);
        assert!(advice.contains("modprobe -r erofs"), "{advice}");
        assert_eq!(erofs(&[LACKS_IT, REPLACED]).0, Verdict::Note);
        let version = ("sys/module/erofs/version", "6.12.1-1+ondemand\n");
        assert_eq!(
            erofs(&[LACKS_IT, REPLACED, KNOWN, version]).0,
            Verdict::Good
        );
    }

    #[test]
    fn a_kernel_whose_own_erofs_has_it_is_good() {
        assert_eq!(erofs(&[KNOWN]).0, Verdict::Good);
        assert_eq!(erofs(&[OWN]).0, Verdict::Note);
        assert_eq!(erofs(&[]).0, Verdict::Bad);
    }

    #[test]
    fn a_locked_down_kernel_is_said() {
        let path = "sys/kernel/security/lockdown";
        let check = on(&[(path, "none [integrity] confidentiality\n")], |system| {
            system.module()
        });
        assert!(check.found.contains("integrity"), "{}", check.found);
        let check = on(&[(path, "[none] integrity confidentiality\n")], |system| {
            system.module()
        });
        assert!(!check.found.contains("signed"), "{}", check.found);
    }
}
