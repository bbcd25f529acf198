// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is swept: each operation with each kind of fault, in parts of about the same time.

use std::fmt;
use std::str::FromStr;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An allocation of the slab allocator, below a function of the module.
    Slab,
    /// An allocation of pages, below a function of the module.
    Page,
    /// A request to the disk that the store is on, whoever has sent it.
    Disk,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Slab, Kind::Page, Kind::Disk];

    fn name(self) -> &'static str {
        match self {
            Kind::Slab => "slab",
            Kind::Page => "page",
            Kind::Disk => "disk",
        }
    }

    /// The directory of its settings in debugfs.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Kind::Slab => "failslab",
            Kind::Page => "fail_page_alloc",
            Kind::Disk => "fail_make_request",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is no kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKind;

impl fmt::Display for NoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what fails is slab, page or disk")
    }
}

impl std::error::Error for NoKind {}

impl FromStr for Kind {
    type Err = NoKind;

    fn from_str(text: &str) -> Result<Self, NoKind> {
        let mut all = Kind::ALL.into_iter();
        all.find(|kind| kind.name() == text).ok_or(NoKind)
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $parts:expr;)*) => {
        /// What is done while something fails.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            /// All, in the order in which a cache does them.
            pub const ALL: &[Operation] = &[$(Operation::$variant,)*];

            fn name(self) -> &'static str {
                match self {
                    $(Operation::$variant => $name,)*
                }
            }

            /// In how many parts it is swept with slab, page, disk.
            fn parts(self) -> [u64; 3] {
                match self {
                    $(Operation::$variant => $parts,)*
                }
            }
        }
    };
}

operations! {
    /// `bind ondemand`.
    Bind = "bind", [1, 1, 1];
    /// The lookup of an image that the store has not seen: directories and a file are made.
    Lookup = "lookup", [1, 1, 1];
    /// The lookup of an image that is stored.
    LookupStored = "lookup_stored", [1, 1, 1];
    /// An OPEN, from `read` to the end of `copen`, for a new image.
    Open = "open", [1, 1, 1];
    /// The same for a stored one, whose attribute is checked.
    OpenStored = "open_stored", [1, 1, 1];
    /// A READ, from the reader's call to its end, but for the fill.
    Read = "read", [1, 1, 1];
    /// A write to an anonymous fd, and READ_COMPLETE.
    Fill = "fill", [1, 1, 1];
    /// The same through memory, until the data is on the disk.
    FillBuffered = "fill_buffered", [1, 1, 1];
    /// The commit after the first data.
    Commit = "commit", [1, 1, 1];
    /// The unmount, with a file that was not committed.
    CommitLate = "commit_late", [1, 1, 1];
    /// `cull` of a file.
    Cull = "cull", [1, 1, 1];
    /// `cull` of a directory, which goes to the graveyard.
    CullDirectory = "cull_directory", [1, 1, 1];
    /// The closing of the device, with an image mounted and a reader waiting.
    Unbind = "unbind", [1, 1, 1];
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A part of a sweep: each `of`th n from `part` on, which counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The operation.
    pub operation: Operation,
    /// What fails.
    pub kind: Kind,
    part: u64,
    of: u64,
}

impl Item {
    /// All items, by kind.
    #[must_use]
    pub fn all() -> Vec<Item> {
        let mut items = Vec::new();
        for (kind, index) in Kind::ALL.into_iter().zip(0..) {
            for &operation in Operation::ALL {
                let of = operation.parts()[index];
                items.extend((1..=of).map(|part| Item {
                    operation,
                    kind,
                    part,
                    of,
                }));
            }
        }
        items
    }

    /// Which allocations or requests fail, one a run, until a run has not so many.
    pub fn numbers(self) -> impl Iterator<Item = u64> {
        (self.part..).step_by(usize::try_from(self.of).unwrap_or(usize::MAX))
    }

    /// Whether nothing can fail in it now and then: no pages are allocated where each slab has space left. That
    /// something fails in the operation is up to the other kinds.
    #[must_use]
    pub fn may_have_none(self) -> bool {
        self.kind == Kind::Page
    }

    /// What faults of it are counted as.
    #[must_use]
    pub fn event(self) -> String {
        format!("{}_{}", self.operation, self.kind)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.operation, self.kind)?;
        match self.of {
            1 => Ok(()),
            of => write!(f, ":{}of{of}", self.part),
        }
    }
}

/// Why a text is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoItem;

impl fmt::Display for NoItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item is OPERATION-KIND, as bind-slab; --list names them")
    }
}

impl std::error::Error for NoItem {}

impl FromStr for Item {
    type Err = NoItem;

    /// `bind-slab` is all of it, in whatever parts it is swept otherwise.
    fn from_str(text: &str) -> Result<Self, NoItem> {
        let (name, part) = text.split_once(':').unwrap_or((text, "1of1"));
        let (operation, kind) = name.split_once('-').ok_or(NoItem)?;
        let (part, of) = part.split_once("of").ok_or(NoItem)?;
        let operation = Operation::ALL
            .iter()
            .find(|known| known.name() == operation);
        let kind = kind.parse().ok();
        let part: u64 = part.parse().map_err(|_| NoItem)?;
        let of: u64 = of.parse().map_err(|_| NoItem)?;
        if part == 0 || part > of {
            return Err(NoItem);
        }
        Ok(Item {
            operation: *operation.ok_or(NoItem)?,
            kind: kind.ok_or(NoItem)?,
            part,
            of,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_operations_are_swept_with_all_kinds() {
        let items = Item::all();
        let swept: BTreeSet<_> = items.iter().map(|item| item.event()).collect();
        assert_eq!(swept.len(), 3 * Operation::ALL.len());
        // What the runner reads as a name of events.
        let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(swept.iter().all(|event| event.chars().all(is_word)));
        let names: BTreeSet<_> = items.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), items.len());
    }

    #[test]
    fn an_item_is_found_by_its_name() {
        for item in Item::all() {
            assert_eq!(item.to_string().parse(), Ok(item));
        }
        for text in [
            "",
            "bind",
            "bind-glue",
            "glue-slab",
            "bind-slab:0of2",
            "bind-slab:3of2",
        ] {
            assert_eq!(text.parse::<Item>(), Err(NoItem), "{text}");
        }
    }

    #[test]
    fn parts_together_are_all_numbers() {
        let part = |text: &str| text.parse::<Item>().unwrap().numbers().take(5);
        let mut both: Vec<u64> = part("bind-slab:1of2")
            .chain(part("bind-slab:2of2"))
            .collect();
        both.sort_unstable();
        assert_eq!(both, (1..=10).collect::<Vec<_>>());
        assert!(part("bind-slab").eq(1..=5));
    }
}
