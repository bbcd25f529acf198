// SPDX-License-Identifier: MIT OR Apache-2.0

//! Security modules: what they are asked, and in which context the store is worked on.
//!
//! The tests `smack_*` need a kernel that was started with `lsm=smack`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::thread::CapabilitySet;

use crate::harness::expect_errno;
use crate::harness::kmsg::KernelLog;
use crate::harness::same;
use crate::harness::skip;
use crate::harness::store::eventually_idle;
use crate::harness::store::make_stale;
use crate::harness::store::object_file;
use crate::harness::store::parent;
use crate::harness::store::read_once;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::SmallDisk;
use crate::harness::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "security_context_without_module",
        "a security context that is accepted, and means nothing",
        context_without_module,
    ),
    Test::new(
        "security_hooks",
        "changes of the store that no security module is asked about",
        hooks,
    ),
    Test::new(
        "smack_context_hooks",
        "a security context that is never put in force",
        context_hooks,
    ),
    Test::new(
        "smack_unknown_context",
        "a context that does not exist, and stands for another",
        unknown_context,
    ),
    Test::new(
        "smack_labels",
        "files in the store with another label than the cache directory's",
        labels,
    ),
    Test::new(
        "smack_denied",
        "a cache that is bound in a context that may not",
        denied,
    ),
];

/// Where Smack keeps the label of a file.
const LABEL: &str = "security.SMACK64";

/// Where smackfs goes; it is there if Smack is active.
const SMACKFS: &str = "/sys/fs/smackfs";

/// A mounted smackfs.
///
/// # Errors
///
/// Skips the test if Smack is not active.
fn smack() -> Result<&'static Path> {
    let dir = Path::new(SMACKFS);
    if !dir.exists() {
        return skip("Smack is not active (lsm=smack)");
    }
    if !dir.join("load2").exists() {
        // It goes with the test's mount namespace.
        rustix::mount::mount("smackfs", dir, "smackfs", MountFlags::empty(), None)?;
    }
    Ok(dir)
}

fn set_label(path: &Path, label: &str) -> Result<()> {
    match rustix::fs::setxattr(path, LABEL, label.as_bytes(), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => skip("no labels on this file system (CONFIG_EXT4_FS_SECURITY)"),
        result => result.with_context(|| format!("label of {}", path.display())),
    }
}

fn label_of(path: &Path) -> Result<String> {
    let mut value = [0; 256];
    let len = rustix::fs::getxattr(path, LABEL, &mut value)
        .with_context(|| format!("label of {}", path.display()))?;
    Ok(String::from_utf8_lossy(&value[..len]).into_owned())
}

fn allow(smackfs: &Path, subject: &str, object: &str, access: &str) -> Result<()> {
    fs::write(
        smackfs.join("load2"),
        format!("{subject} {object} {access}"),
    )
    .with_context(|| format!("the rule {subject} {object} {access}"))
}

fn context_without_module(t: &Context) -> Result<()> {
    if Path::new(SMACKFS).exists() || Path::new("/sys/fs/selinux").exists() {
        return skip("a security module with contexts is active");
    }
    let device = t.device()?;
    for command in ["secctx", "secctx ", "secctx \n"] {
        let written = device.write_bytes(command.as_bytes());
        expect_errno(command.trim_end(), written, &[Errno::INVAL])?;
    }
    for _ in 0..2 {
        let written = device.write_bytes(b"secctx system_u:object_r:cache_t:s0");
        // Without CONFIG_SECURITY, and with it but no module that knows contexts.
        let errors = [Errno::OPNOTSUPP, Errno::INVAL];
        expect_errno("secctx", written, &errors)?;
    }
    // It can be bound all the same.
    let dir = t.new_dir()?;
    device.write_bytes(format!("dir {}", dir.display()).as_bytes())?;
    device.write_bytes(b"bind ondemand").context("bind")?;
    Ok(())
}

/// Probes on functions of the kernel, gone when this is dropped.
struct Probes(Vec<&'static str>);

const TRACEFS: &str = "/sys/kernel/tracing";

impl Probes {
    fn new(functions: &[&'static str]) -> Result<Self> {
        let mut probes = Probes(Vec::new());
        for function in functions {
            if !write_events(&format!("p:selftest/{function} {function}")) {
                return skip("no probes in /sys/kernel/tracing (CONFIG_KPROBE_EVENTS)");
            }
            probes.0.push(function);
        }
        fs::write(format!("{TRACEFS}/events/selftest/enable"), "1")?;
        Ok(probes)
    }

    /// How often each function was called so far.
    fn hits(&self) -> Result<BTreeMap<String, u64>> {
        let profile = fs::read_to_string(format!("{TRACEFS}/kprobe_profile"))?;
        let mut hits = BTreeMap::new();
        for line in profile.lines() {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(count)) = (words.next(), words.next()) {
                hits.insert(name.to_owned(), count.parse()?);
            }
        }
        Ok(hits)
    }

    /// Fails unless each function was called so often at least while `run` did something.
    fn during<R>(
        &self,
        what: &str,
        wanted: &[(&str, u64)],
        run: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let before = self.hits()?;
        let result = run().context(what.to_owned())?;
        let after = self.hits()?;
        for (name, count) in wanted {
            let was = |hits: &BTreeMap<String, u64>| hits.get(*name).copied().unwrap_or(0);
            let hits = was(&after) - was(&before);
            ensure!(hits >= *count, "{what}: {name} was called {hits} times");
        }
        Ok(result)
    }
}

/// Appends a line to the list of probes; whether that went well.
fn write_events(line: &str) -> bool {
    fs::File::options()
        .append(true)
        .open(format!("{TRACEFS}/kprobe_events"))
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .is_ok()
}

impl Drop for Probes {
    fn drop(&mut self) {
        // What cannot be removed hurts nobody.
        let _ = fs::write(format!("{TRACEFS}/events/selftest/enable"), "0");
        for function in &self.0 {
            write_events(&format!("-:selftest/{function}"));
        }
    }
}

fn hooks(t: &Context) -> Result<()> {
    let probes = Probes::new(&[
        "security_path_mkdir",
        "security_path_unlink",
        "security_path_rename",
        "security_inode_mkdir",
        "security_inode_create",
        "security_kernel_create_files_as",
    ])?;
    let dir = t.new_dir()?;
    // `cache` and `graveyard` are made, and whether that may be done was asked before.
    let daemon = probes.during(
        "the first bind",
        &[
            ("security_path_mkdir", 2),
            ("security_inode_mkdir", 3),
            ("security_kernel_create_files_as", 1),
        ],
        || t.daemon_in(&dir),
    )?;
    drop(daemon);
    let mut daemon = probes.during(
        "a second bind",
        &[
            ("security_inode_mkdir", 1),
            ("security_inode_create", 1),
            ("security_kernel_create_files_as", 1),
        ],
        || t.daemon_in(&dir),
    )?;
    daemon.images = vec![t.images.get("small")?];
    let at = t.mount_point()?;
    let once = |daemon: &mut Daemon| -> Result<()> {
        let mut mount = t.mount("fsid=small", &at)?;
        daemon.serve(&mut mount)?.ok("mount")?;
        let mut umount = t.unmount(&at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
        eventually_idle("Ierofs,small", daemon)
    };
    let file = object_file(&dir, "erofs,small", "small")?;
    let volume = parent(parent(&file)?)?;
    std::env::set_current_dir(dir.join("cache"))?;
    probes.during(
        "the mount of a new image",
        &[("security_path_mkdir", 2)],
        || once(&mut daemon),
    )?;
    make_stale(&file)?;
    probes.during(
        "the replacement of a stale file",
        &[("security_path_unlink", 1)],
        || once(&mut daemon),
    )?;
    make_stale(volume)?;
    probes.during(
        "the burial of a stale volume",
        &[("security_path_rename", 1)],
        || once(&mut daemon),
    )?;
    std::env::set_current_dir(parent(&file)?)?;
    eventually_idle("Dsmall", &mut daemon)?;
    let cull = |name: &str| daemon.command(&format!("cull {name}")).context("cull");
    probes.during(
        "the culling of a file",
        &[("security_path_unlink", 1)],
        || cull("Dsmall"),
    )?;
    std::env::set_current_dir(dir.join("cache"))?;
    probes.during(
        "the culling of a volume",
        &[("security_path_rename", 1)],
        || cull("Ierofs,small"),
    )
}

/// Opens the device and sets a cache up in `dir`, in the context `label`.
fn set_up(t: &Context, dir: &Path, label: &str) -> Result<cachefiles_proto::Device> {
    let device = t.device()?;
    device.write_bytes(format!("dir {}", dir.display()).as_bytes())?;
    device
        .write_bytes(format!("secctx {label}").as_bytes())
        .with_context(|| format!("secctx {label}"))?;
    Ok(device)
}

fn context_hooks(t: &Context) -> Result<()> {
    let smackfs = smack()?;
    // A label exists once a rule or a file has it.
    allow(smackfs, "CacheAgent", "CacheDir", "rwxat")?;
    let dir = t.new_dir()?;
    let probes = Probes::new(&["security_secctx_to_secid", "security_kernel_act_as"])?;
    let wanted = [("security_secctx_to_secid", 1)];
    let device = probes.during("secctx", &wanted, || set_up(t, &dir, "CacheAgent"))?;
    let second = device.write_bytes(b"secctx CacheDir");
    expect_errno("a second secctx", second, &[Errno::INVAL])?;
    let wanted = [("security_kernel_act_as", 1)];
    probes.during("bind", &wanted, || {
        Ok(device.write_bytes(b"bind ondemand").map(drop)?)
    })?;
    let late = device.write_bytes(b"secctx CacheDir");
    expect_errno("secctx after bind", late, &[Errno::BUSY, Errno::INVAL])
}

fn unknown_context(t: &Context) -> Result<()> {
    smack()?;
    let device = t.device()?;
    for label in [
        "NobodyHasHeardOfThisOne",
        "not/a/label",
        "-",
        &"x".repeat(300),
    ] {
        let written = device.write_bytes(format!("secctx {label}").as_bytes());
        expect_errno(format!("secctx {label}"), written, &[Errno::INVAL])?;
    }
    // The floor label exists always; and what was refused has not been set.
    device.write_bytes(b"secctx _").context("secctx _")?;
    Ok(())
}

/// What a cache makes, from the directory of `cache` to the file of `small`.
fn made(dir: &Path) -> Result<Vec<PathBuf>> {
    let file = object_file(dir, "erofs,small", "small")?;
    let mut all: Vec<PathBuf> = file
        .ancestors()
        .take_while(|path| *path != dir)
        .map(Path::to_owned)
        .collect();
    all.push(dir.join("graveyard"));
    Ok(all)
}

fn labels(t: &Context) -> Result<()> {
    let smackfs = smack()?;
    allow(smackfs, "CacheAgent", "CacheDir", "rwxat")?;
    let expected = t.images.contents("small")?;
    for context in [None, Some("CacheAgent")] {
        let dir = t.new_dir()?;
        set_label(&dir, "CacheDir")?;
        let device = match context {
            Some(label) => set_up(t, &dir, label)?,
            None => {
                let device = t.device()?;
                device.write_bytes(format!("dir {}", dir.display()).as_bytes())?;
                device
            }
        };
        device.write_bytes(b"bind ondemand").context("bind")?;
        let mut daemon = Daemon::from_device(device);
        daemon.images = vec![t.images.get("small")?];
        let data = read_once(t, &mut daemon, "fsid=small")?;
        same("the file", &data, &expected)?;
        drop(daemon);
        for path in made(&dir)? {
            let label = label_of(&path)?;
            ensure!(
                label == "CacheDir",
                "secctx {context:?}: {} has the label {label}",
                path.display()
            );
        }
    }
    Ok(())
}

fn denied(t: &Context) -> Result<()> {
    let smackfs = smack()?;
    allow(smackfs, "CacheAgent", "Locked", "-")?;
    // Everything on this disk has the label.
    let labels = "user_xattr,smackfsroot=Locked,smackfsdef=Locked";
    let disk = SmallDisk::mounted_with(t, 40, labels)?;
    let dir = disk.cache_dir()?;
    // Whoever has this capability may do all.
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(CapabilitySet::MAC_OVERRIDE);
    rustix::thread::set_capabilities(None, sets)?;
    let log = KernelLog::end()?;
    let device = set_up(t, &dir, "CacheAgent")?;
    let bound = device.write_bytes(b"bind ondemand");
    expect_errno("bind without the right", bound, &[Errno::ACCESS])?;
    let lines = log.lines();
    let path = dir.to_string_lossy();
    let told = |text: &str| text.contains(&*path) || text.contains("-13");
    ensure!(
        lines.iter().any(|line| told(&line.text)),
        "the log does not tell: {lines:?}"
    );
    // To get there is all that the context itself needs: what is done there is done under the
    // label of the cache directory.
    allow(smackfs, "CacheAgent", "Locked", "x")?;
    device.write_bytes(b"bind ondemand").context("bind")?;
    let mut daemon = Daemon::from_device(device);
    daemon.images = vec![t.images.get("small")?];
    let data = read_once(t, &mut daemon, "fsid=small")?;
    same("the file", &data, &t.images.contents("small")?)
}
