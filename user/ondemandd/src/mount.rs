// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd mount` and `ondemandd umount`.

use std::ffi::CString;
use std::path::Path;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use crate::cli;
use crate::mounted;

/// Volume keys are `erofs,` and this, and at most 254 bytes.
const LONGEST_DOMAIN: usize = 254 - "erofs,".len();

/// Keys with a slash are stored under longer names, of at most 255 bytes.
const LONGEST_WITH_SLASH: usize = 189;

/// Mounts an image. It takes as long as the daemon needs to bring its first blocks.
///
/// # Errors
///
/// A name that the kernel or the store would not take; what the kernel says, with what may be done.
pub fn mount(args: &cli::Mount) -> anyhow::Result<()> {
    let options = options_of(args)?;
    let data = CString::new(options.clone())?;
    let flags = MountFlags::RDONLY;
    rustix::mount::mount("none", &args.dir, "erofs", flags, data.as_c_str()).map_err(|errno| {
        let (image, dir) = (&args.image, args.dir.display());
        let hint = mount_hint(errno, &args.dir);
        anyhow::anyhow!("cannot mount {image} on {dir} ({options}): {errno}. {hint}")
    })
}

/// The options of the file system, after a look at the names.
fn options_of(args: &cli::Mount) -> anyhow::Result<String> {
    let prefix = args.image.split_once('/').map(|(name, _)| name.to_owned());
    let domain = args.domain.clone().or(prefix);
    for key in args.blob.iter().chain([&args.image]).chain(&domain) {
        ensure!(!key.is_empty(), "a name is empty");
        ensure!(
            !key.contains([',', '\0']),
            "{}: the kernel takes no name with a comma",
            key.escape_debug()
        );
    }
    let volume = domain.as_ref().unwrap_or(&args.image);
    ensure!(
        volume.len() <= LONGEST_DOMAIN && !volume.contains('/'),
        "{volume}: the kernel takes no domain, and without one no image, with a slash or of more than {LONGEST_DOMAIN} \
         bytes; use --domain"
    );
    for key in args.blob.iter().chain([&args.image]) {
        // A name in the store is longer than the key if that has a slash, or a byte that is no ASCII.
        if ondemand_core::key::cook(key.as_bytes()).is_err() {
            bail!(
                "{key}: too long for the store; 252 bytes are possible, {LONGEST_WITH_SLASH} with a slash"
            );
        }
    }
    let mut options = String::new();
    if let Some(domain) = &domain {
        options.push_str(&format!("domain_id={domain},"));
    }
    options.push_str(&format!("fsid={}", args.image));
    for blob in &args.blob {
        options.push_str(&format!(",device={blob}"));
    }
    Ok(options)
}

fn mount_hint(errno: Errno, dir: &Path) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => "Only root can mount.",
        Errno::NOENT if !dir.exists() => "Make that directory first.",
        Errno::NODEV => "The kernel knows no erofs: `modprobe erofs`, or see `ondemandd doctor`.",
        Errno::INVAL => {
            "Either the data is no EROFS image, or the kernel's erofs was built without on-demand mode; \
             the kernel's log says which."
        }
        Errno::NOBUFS | Errno::NOENT | Errno::IO => {
            "Does the daemon run, and does it know that image? Its log and the kernel's say more; so \
             does `ondemandd doctor`."
        }
        Errno::BUSY => "Something with the same name is mounted in another way.",
        Errno::NOTDIR => "That is no directory.",
        _ => "The kernel's log may say more.",
    }
}

/// Unmounts an image.
///
/// # Errors
///
/// No image is mounted there; what the kernel says.
pub fn umount(args: &cli::Umount) -> anyhow::Result<()> {
    let dir = std::fs::canonicalize(&args.dir)
        .with_context(|| format!("cannot find {}", args.dir.display()))?;
    let is_image = mounted::all()?.iter().any(|image| image.dir == dir);
    ensure!(
        is_image,
        "{}: no image over fscache is mounted there; see `ondemandd status`",
        dir.display()
    );
    rustix::mount::unmount(&dir, UnmountFlags::NOFOLLOW).map_err(|errno| {
        let hint = match errno {
            Errno::BUSY => "Somebody uses it: `fuser -vm DIR` says who.",
            Errno::PERM => "Only root can unmount.",
            _ => "The kernel's log may say more.",
        };
        anyhow::anyhow!("cannot unmount {}: {errno}. {hint}", dir.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(image: &str, domain: Option<&str>, blobs: &[&str]) -> anyhow::Result<String> {
        options_of(&cli::Mount {
            image: image.into(),
            dir: "/mnt".into(),
            domain: domain.map(str::to_owned),
            blob: blobs.iter().map(|blob| (*blob).to_owned()).collect(),
        })
    }

    #[test]
    fn a_source_is_a_domain_unless_told_otherwise() {
        let good = |image, domain, blobs: &[&str]| options(image, domain, blobs).unwrap();
        assert_eq!(good("image", None, &[]), "fsid=image");
        assert_eq!(good("web/a/b", None, &[]), "domain_id=web,fsid=web/a/b");
        assert_eq!(
            good("web/a", Some("d"), &["web/b", "c"]),
            "domain_id=d,fsid=web/a,device=web/b,device=c"
        );
    }

    #[test]
    fn names_that_nobody_would_take_are_refused() {
        let bad = |image: &str, domain| options(image, domain, &[]).unwrap_err().to_string();
        assert!(bad("a,b", None).contains("comma"));
        assert!(bad("", None).contains("empty"));
        assert!(bad("/a", None).contains("empty"));
        assert!(bad("a", Some("d/e")).contains("--domain"));
        assert!(bad(&"x".repeat(249), None).contains("--domain"));
        assert!(options(&"x".repeat(248), None, &[]).is_ok());
        assert!(bad(&"x".repeat(253), Some("d")).contains("too long"));
        let long = format!("web/{}", "x".repeat(240));
        assert!(bad(&long, None).contains("too long"));
        // What the documentation says.
        let fits = |len: &usize| options(&format!("w/{}", "x".repeat(len - 2)), None, &[]).is_ok();
        assert_eq!((2..=255).rev().find(fits), Some(LONGEST_WITH_SLASH));
    }
}
