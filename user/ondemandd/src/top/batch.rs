// SPDX-License-Identifier: MIT OR Apache-2.0

//! A look as plain text, for scripts and for what is no terminal.

use std::fmt::Write;

use super::Look;
use crate::images::size;
use crate::images::Image;

/// The text, with a newline at its end.
pub(super) fn text(look: &Look) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match &look.daemon {
        Ok(daemon) => {
            let columns: Vec<_> = daemon
                .numbers()
                .into_iter()
                .chain(daemon.latency())
                .collect();
            let names = columns.iter().map(|(name, _)| format!("{name:>12}"));
            let values = columns.iter().map(|(_, value)| format!("{value:>12}"));
            writeln!(
                text,
                "{}; rates {}\n{}\n{}",
                daemon.summary(),
                daemon.period(),
                names.collect::<String>(),
                values.collect::<String>()
            )
        }
        Err(error) => writeln!(text, "no daemon: {error}"),
    };
    if !look.images.is_empty() {
        let _ = writeln!(
            text,
            "{:>12}{:>12}{:>5}  IMAGE on DIRECTORY",
            "cached", "total", "%"
        );
    }
    for image in &look.images {
        let _ = self::image(&mut text, image);
    }
    text
}

fn image(text: &mut String, image: &Image) -> std::fmt::Result {
    let (cached, total) = image.sum();
    let (_, percent) = crate::images::bar(cached, total);
    let (name, dir) = (&image.image, image.dir.display());
    if total == 0 {
        // Nothing of it is in the store, or nobody knows where that is.
        return writeln!(text, "{:>12}{:>12}{:>5}  {name} on {dir}", "-", "-", "-");
    }
    let (cached, total) = (size(cached), size(total));
    writeln!(text, "{cached:>12}{total:>12}{percent:>5}  {name} on {dir}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_a_table() {
        let text = text(&super::super::tests::look());
        let lines: Vec<&str> = text.lines().collect();
        let [summary, names, values, _, first, second] = lines.as_slice() else {
            panic!("{text}");
        };
        let expected =
            "keeper 1, no worker, worker restarts 0, up 2 s; rates since the keeper's start";
        assert_eq!(*summary, expected);
        assert_eq!(names.chars().count(), values.chars().count());
        assert!(
            names.ends_with("        50 %        90 %        99 %"),
            "{names}"
        );
        let values: Vec<&str> = values.split_whitespace().collect();
        let expected = [
            "10", "1.5", "2.00", "MiB", "512.00", "KiB", "5", "0.0", "0.0", "4µs", "4µs", "8µs",
        ];
        assert_eq!(values, expected);
        assert_eq!(*first, "    1.00 MiB    2.00 MiB   50  web/first on /mnt");
        assert_eq!(*second, "           -           -    -  web/second on /mnt");
    }

    #[test]
    fn a_daemon_that_is_away_is_a_line() {
        let look = Look {
            daemon: Err("gone".to_owned()),
            images: Vec::new(),
        };
        assert_eq!(text(&look), "no daemon: gone\n");
    }
}
