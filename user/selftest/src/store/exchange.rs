// SPDX-License-Identifier: MIT OR Apache-2.0

//! A store that one module has filled, served by the other.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::mount::UnmountFlags;

use super::items::file_length;
use super::items::Item;
use super::keys;
use super::listing::Listing;
use super::modules::Module;
use super::report::comment;
use super::report::Report;
use super::slice::Slice;
use super::visit;
use super::visit::KeyedRead;
use crate::harness::Context;

/// The two modules, as files.
#[derive(Clone, Debug)]
pub struct Modules {
    /// The kernel's own `cachefiles.ko`.
    pub c: PathBuf,
    /// `cachefiles_ondemand.ko`.
    pub rust: PathBuf,
}

/// The key that is served with another size later.
const REPLACED: &[u8] = b"replaced";

/// How many differences are printed.
const SHOWN: usize = 20;

/// What fills a store: keys of every kind, volumes of every kind, and images of which only some is
/// read.
fn first_items(slice: Slice) -> Vec<Item> {
    let mut items = keys::items();
    slice.keep(&mut items);
    // Volumes: no domain, short and long ones, one of odd bytes.
    let solo = |len: usize| vec![b'v'; len];
    for len in [1, 2, 100, 200, 246] {
        items.push(Item::whole(None, solo(len), "small"));
        items.push(Item::whole(Some(&solo(len)), format!("in{len}"), "small"));
    }
    items.push(Item::whole(None, *b"\x01\xff\x80\x1f bytes", "small"));
    items.push(Item::whole(Some(b"\xfe\x02"), *b"\xff", "small"));
    // Two devices.
    items.push(Item::whole(Some(b"dom"), *b"chunked", "chunked"));
    items.extend(some_items());
    items.push(Item::whole(Some(b"dom"), REPLACED, "small"));
    items
}

/// Images of which only these spans are read.
fn some_items() -> Vec<Item> {
    let item = |key: &str, spans: &[(usize, usize)]| {
        Item::whole(Some(b"dom"), key, "plain").partial(spans)
    };
    let all = file_length("plain");
    vec![
        item("none", &[]),
        item("first-half", &[(0, all / 2)]),
        item("last-half", &[(all / 2, all / 2)]),
        item("last-page", &[(all - 4096, 4096)]),
        item(
            "pieces",
            &[
                (8192, 4096),
                (65536, 200_000),
                (700_001, 1),
                (900_000, 5000),
            ],
        ),
    ]
}

/// The same items, each from end to end, the replaced one with its new size.
fn whole_items(slice: Slice) -> Vec<Item> {
    first_items(slice)
        .into_iter()
        .map(|item| {
            let image = if item.key == REPLACED {
                "plain"
            } else {
                item.image
            };
            Item::whole(item.domain.as_deref(), item.key, image)
        })
        .collect()
}

/// Fills a store under each module and lets the other serve it; prints KTAP. Of the keys of every
/// length only those of `slice` are tried; volumes and images, which are few, always are.
///
/// # Errors
///
/// A store's directory cannot be made.
pub fn run(t: &Context, modules: &Modules, slice: Slice) -> Result<ExitCode> {
    let items = first_items(slice);
    let whole = whole_items(slice);
    let mut report = Report::new(8);
    let sides = [("c", &modules.c), ("rust", &modules.rust)];
    let stores = [t.new_dir()?, t.new_dir()?];
    for ((name, module), store) in sides.iter().zip(&stores) {
        report.step(&format!("exchange_{name}_fills"), || {
            let reads = under(t, module, || visit::visit(t, store, &items))?;
            comment(format!("{} objects, {} READs", items.len(), reads.len()));
            Ok(())
        });
    }
    report.step("exchange_filled_alike", || {
        let (files, identities) = alike(&stores)?;
        ensure!(
            identities == [0, files],
            "of {files} files {identities:?} say which version they hold"
        );
        Ok(())
    });
    report.step("exchange_names", || {
        stores
            .iter()
            .try_for_each(|store| only_known_names(store, &items))
    });
    // Each store goes to the other module.
    for (from, to) in [(0, 1), (1, 0)] {
        let name = format!("exchange_{}_to_{}", sides[from].0, sides[to].0);
        report.step(&name, || {
            served(t, sides[to].1, &stores[from], &items, &whole)
        });
    }
    report.step("exchange_served_alike", || alike(&stores).map(drop));
    report.step("exchange_complete", || {
        for ((name, module), store) in sides.iter().zip(&stores) {
            let reads = under(t, module, || visit::visit(t, store, &whole))?;
            ensure!(reads.is_empty(), "{name} asks again: {}", show(&reads));
        }
        Ok(())
    });
    Ok(report.exit_code())
}

/// Does something while a module is loaded.
fn under<T>(t: &Context, module: &Path, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let loaded = Module::load(module, &t.settings.device)?;
    let value = run();
    if value.is_err() {
        // Where it was when it failed; the next step wants the other module.
        let _ = rustix::mount::unmount(visit::mount_point(t), UnmountFlags::DETACH);
    }
    let unloaded = loaded.unload();
    let value = value?;
    unloaded?;
    Ok(value)
}

/// Whether two stores hold the same, but for fan-out directories with nothing in them, and for the attribute of
/// versions. Tells how many files each has, and how many of those have that attribute.
fn alike(stores: &[PathBuf; 2]) -> Result<(usize, [usize; 2])> {
    let mut listings = [Listing::of(&stores[0])?, Listing::of(&stores[1])?];
    let [c, rust] = &mut listings;
    let empty = [c.remove_empty_fanout(), rust.remove_empty_fanout()];
    let identities = [c.remove_identities(), rust.remove_identities()];
    let files = c.files().count();
    comment(format!(
        "{files} files, {} KiB of data; empty fan-out directories: {} and {}",
        c.files().map(|(_, entry)| entry.stored()).sum::<u64>() >> 10,
        empty[0],
        empty[1],
    ));
    let differences = c.differences(rust);
    for line in differences.iter().take(SHOWN) {
        comment(line);
    }
    ensure!(differences.is_empty(), "{} differences", differences.len());
    ensure!(files > 0, "the stores are empty");
    Ok((files, identities))
}

/// Whether each file is where a daemon would compute it to be, with its attribute, and no other is
/// there.
fn only_known_names(store: &Path, items: &[Item]) -> Result<()> {
    let listing = Listing::of(store)?;
    let mut known = Vec::new();
    for item in items {
        for (key, _) in item.objects() {
            let path = item.path(&key)?;
            let entry = listing
                .get(&path)
                .with_context(|| path.display().to_string())?;
            ensure!(
                entry.object_size().is_some(),
                "{}: no attribute",
                path.display()
            );
            known.push(path);
        }
    }
    for (path, _) in listing.files() {
        ensure!(known.contains(path), "{} is nobody's", path.display());
    }
    Ok(())
}

/// Reads all of every image of a store under a module: what is stored is not asked for.
/// `first`: what has filled it; `items`: the same from end to end.
fn served(t: &Context, module: &Path, store: &Path, first: &[Item], items: &[Item]) -> Result<()> {
    let before = Listing::of(store)?;
    let reads = under(t, module, || visit::visit(t, store, items))?;
    let mut wrong = Vec::new();
    let mut asked = 0;
    for read @ (key, off, len) in &reads {
        let item = items.iter().find(|item| item.key == *key);
        let item = item.with_context(|| format!("a READ of {}", key.escape_ascii()))?;
        if key == REPLACED {
            continue;
        }
        asked += len;
        let entry = before.get(&item.path(key)?).context("a READ of no file")?;
        if entry.overlaps(*off, *len) {
            wrong.push(read.clone());
        }
    }
    ensure!(
        wrong.is_empty(),
        "asked for what is stored: {}",
        show(&wrong)
    );
    // Of an image that was read from end to end before, nothing is asked at all.
    for item in first {
        if item.is_whole() && item.key != REPLACED {
            let again = reads.iter().filter(|(key, ..)| *key == item.key).count();
            ensure!(again == 0, "{again} READs of {}", item.key.escape_ascii());
        }
    }
    for item in some_items() {
        ensure!(
            reads.iter().any(|(key, ..)| *key == item.key),
            "{} has holes, and nothing was asked",
            item.key.escape_ascii()
        );
    }
    comment(format!(
        "{} objects, {} READs of {} KiB, all of them holes",
        items.len(),
        reads.len(),
        asked >> 10
    ));
    Ok(())
}

/// READs for a message.
fn show(reads: &[KeyedRead]) -> String {
    let lines: Vec<String> = reads
        .iter()
        .take(SHOWN)
        .map(|(key, off, len)| format!("{} {off}+{len}", key.escape_ascii()))
        .collect();
    format!("{} READs: {}", reads.len(), lines.join(", "))
}

#[cfg(test)]
mod items {
    use super::*;

    #[test]
    fn keys_are_unique_and_have_names() -> Result<()> {
        let mut seen = Vec::new();
        for item in first_items(Slice::WHOLE) {
            for (key, _) in item.objects() {
                item.path(&key)?;
                seen.push(key);
            }
        }
        let objects = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), objects);
        Ok(())
    }
}
