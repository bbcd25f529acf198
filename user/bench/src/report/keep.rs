// SPDX-License-Identifier: MIT OR Apache-2.0

//! The copy of a report that is kept with the source: the part of a document between two marks.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;

const BEGIN: &str = "<!-- begin: what scripts/bench --keep has written -->";
const END: &str = "<!-- end -->";

/// Puts `text` into `benchmarks.md` of `docs`, and the plots into a directory beside it.
///
/// # Errors
///
/// The document has no marks, or a file cannot be written.
pub(super) fn keep(docs: &Path, text: &str, plots: &[(&str, String)]) -> Result<()> {
    let path = docs.join("benchmarks.md");
    let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let new = replaced(&old, text).with_context(|| path.display().to_string())?;
    let dir = docs.join("benchmarks");
    fs::create_dir_all(&dir)?;
    for (name, plot) in plots {
        fs::write(dir.join(name), plot)?;
    }
    Ok(fs::write(path, new)?)
}

/// `document` with `text` between its marks.
fn replaced(document: &str, text: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).context("no begin mark")?;
    let (_, after) = rest.split_once(END).context("no end mark")?;
    Ok(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{after}",
        text.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = replaced(&document, "new\n").unwrap();
        assert_eq!(once, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(replaced(&once, "new").unwrap(), once);
        assert!(replaced("no marks", "new").is_err());
        assert!(replaced(BEGIN, "new").is_err());
    }
}
