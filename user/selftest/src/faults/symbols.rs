// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where functions lie in the kernel's memory, from `/proc/kallsyms`: the filter for faults takes
//! ranges of addresses.

use std::ops::Range;

use anyhow::Context as _;
use anyhow::Result;

/// A page of the kernel's text, in bytes.
const PAGE: u64 = 4096;

/// Functions and their addresses.
#[derive(Debug)]
pub struct Symbols {
    /// Sorted by address: the address, the name, the module ("" for the kernel itself).
    functions: Vec<(u64, String, String)>,
}

impl Symbols {
    /// Those of the running kernel.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or hides the addresses.
    pub fn of_kernel() -> Result<Self> {
        const PATH: &str = "/proc/kallsyms";
        let text = std::fs::read_to_string(PATH).context(PATH)?;
        let symbols = Self::parse(&text);
        let told = symbols.functions.iter().any(|(address, ..)| *address != 0);
        anyhow::ensure!(told, "{PATH} hides the addresses");
        Ok(symbols)
    }

    fn parse(text: &str) -> Self {
        let mut functions: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok()?;
                let is_text = matches!(words.next()?, "t" | "T" | "w" | "W");
                let name = words.next()?.to_owned();
                let module = words.next().unwrap_or_default();
                let module = module.trim_matches(['[', ']']).to_owned();
                is_text.then_some((address, name, module))
            })
            .collect();
        functions.sort();
        Symbols { functions }
    }

    /// All functions of a module.
    ///
    /// # Errors
    ///
    /// There is no such module.
    pub fn of_module(&self, module: &str) -> Result<Range<u64>> {
        let mut addresses = self
            .functions
            .iter()
            .filter(|(.., of)| of == module)
            .map(|(address, ..)| *address);
        let first = addresses.next();
        let first = first.with_context(|| format!("no function of {module} is known"))?;
        // Where the last one ends is not told; text is in pages of its own.
        let last = addresses.next_back().unwrap_or(first);
        Ok(first..(last + 1).next_multiple_of(PAGE))
    }

    /// The functions of these names and what lies between them; the empty range if there is none.
    #[must_use]
    pub fn of_functions(&self, names: &[&str]) -> Range<u64> {
        let named = |at: &usize| names.contains(&self.functions[*at].1.as_str());
        let mut found = (0..self.functions.len()).filter(named);
        let Some(first) = found.next() else {
            return 0..0;
        };
        let last = found.next_back().unwrap_or(first);
        let begin = self.functions[first].0;
        let end = self.functions[last + 1..].first();
        begin..end.map_or(begin, |(address, ..)| *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _text
ffffffff81000100 t alloc_it
ffffffff81000180 t create_it
ffffffff81000200 T other
ffffffff81000300 D data
ffffffffa0001000 t last_of_erofs\t[erofs]
ffffffffa0003040 t second\t[ours]
ffffffffa0002010 t first\t[ours]
ffffffffa0009000 d data\t[ours]
";

    #[test]
    fn the_text_of_a_module_is_whole_pages_at_its_end() {
        let range = Symbols::parse(TEXT).of_module("ours").unwrap();
        assert_eq!(range, 0xffff_ffff_a000_2010..0xffff_ffff_a000_4000);
        assert!(Symbols::parse(TEXT).of_module("theirs").is_err());
    }

    #[test]
    fn functions_end_where_the_next_one_begins() {
        let symbols = Symbols::parse(TEXT);
        let both = symbols.of_functions(&["create_it", "alloc_it", "not_there"]);
        assert_eq!(both, 0xffff_ffff_8100_0100..0xffff_ffff_8100_0200);
        let one = symbols.of_functions(&["alloc_it"]);
        assert_eq!(one, 0xffff_ffff_8100_0100..0xffff_ffff_8100_0180);
        assert_eq!(symbols.of_functions(&["not_there"]), 0..0);
    }
}
