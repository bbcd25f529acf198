// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd evict IMAGE`: has the keeper drop what the cache holds of an image.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;

use crate::cli;
use crate::control;
use crate::control::Answer;
use crate::control::Evicted;
use crate::control::Request;
use crate::control::Targets;
use crate::images::size;

/// A volume may have many objects, and a disk may be busy.
const EVICTED_WITHIN: Duration = Duration::from_secs(120);

/// Evicts an image, and says what is gone.
///
/// # Errors
///
/// No keeper answers; the image, or a blob, is in use, or nothing of it is stored.
pub fn run(args: &cli::Evict) -> anyhow::Result<()> {
    let domain = cli::domain_of(&args.image, args.domain.as_deref());
    let targets = Targets {
        volume: cli::volume_of(&args.image, args.domain.as_deref()),
        keys: [&args.image]
            .into_iter()
            .chain(&args.blob)
            .cloned()
            .collect(),
        // What is in a volume of its own belongs to nobody else.
        all: domain.is_none(),
        forget: true,
    };
    let evicted = ask(&args.run_dir, targets)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &evicted)?;
        writeln!(out)?;
    } else {
        out.write_all(text(&evicted).as_bytes())?;
    }
    check(&args.image, &evicted)
}

/// Has the keeper evict something.
///
/// # Errors
///
/// No keeper answers, or it says why not.
pub(crate) fn ask(run_dir: &std::path::Path, targets: Targets) -> anyhow::Result<Evicted> {
    let request = Request::Evict { targets };
    let answer = control::client::ask(run_dir, &request, EVICTED_WITHIN)?;
    let answer = answer.with_context(|| {
        format!(
            "no keeper answers in {}: `ondemandd evict` is for a daemon that runs",
            run_dir.display()
        )
    })?;
    match answer {
        Answer::Evicted { evicted } => Ok(evicted),
        Answer::Error { error } => bail!("the keeper says: {error}"),
        other => bail!("the keeper gives another answer: {other:?}"),
    }
}

fn text(evicted: &Evicted) -> String {
    let (objects, bytes) = (evicted.objects, size(evicted.bytes));
    let mut text = format!("{objects} objects, {bytes}\n");
    if evicted.forgotten > 0 {
        let forgotten = evicted.forgotten;
        text += &format!("  forgotten that there was a manifest: {forgotten} objects\n");
    }
    for key in &evicted.missing {
        text += &format!("  nothing stored  {key}\n");
    }
    for key in &evicted.in_use {
        text += &format!("  in use  {key}\n");
    }
    text
}

fn check(image: &str, evicted: &Evicted) -> anyhow::Result<()> {
    ensure!(
        evicted.failed.is_empty(),
        "could not be removed: {}",
        evicted.failed.join("; ")
    );
    ensure!(
        evicted.in_use.is_empty(),
        "{} is in use: unmount it first (`ondemandd status` says where it is mounted)",
        evicted.in_use.join(", ")
    );
    ensure!(
        evicted.objects + evicted.forgotten > 0,
        "nothing is stored of {image}: is that its name, and its domain (--domain)?"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_an_error() {
        let gone = Evicted {
            objects: 2,
            bytes: 1 << 20,
            missing: vec!["blob".into()],
            ..Evicted::default()
        };
        check("image", &gone).unwrap();
        assert_eq!(text(&gone), "2 objects, 1.00 MiB\n  nothing stored  blob\n");
        let in_use = Evicted {
            in_use: vec!["image".into()],
            ..gone.clone()
        };
        let error = check("image", &in_use).unwrap_err().to_string();
        assert!(error.contains("unmount"), "{error}");
        let failed = Evicted {
            failed: vec!["image: EIO".into()],
            ..gone
        };
        assert!(check("image", &failed).is_err());
        let forgotten = Evicted {
            forgotten: 1,
            ..Evicted::default()
        };
        check("image", &forgotten).unwrap();
        let nothing = check("image", &Evicted::default()).unwrap_err();
        assert!(nothing.to_string().contains("--domain"));
    }
}
