// SPDX-License-Identifier: MIT OR Apache-2.0

//! The file systems that are tried, as they are made and mounted.

/// How one file system is made and mounted.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// What it is called in results.
    pub name: &'static str,
    /// What `mount -t` calls it.
    pub kind: &'static str,
    /// Arguments of `mkfs.KIND`, beside those that it has always.
    pub mkfs: &'static [&'static str],
    /// Options of `mount`.
    pub options: &'static str,
    /// The directory of the cache ignores the case of names.
    pub ignores_case: bool,
    /// A refusal by `bind` is a failure.
    pub must_work: bool,
}

const fn variant(
    name: &'static str,
    kind: &'static str,
    mkfs: &'static [&'static str],
    options: &'static str,
) -> Variant {
    Variant {
        name,
        kind,
        mkfs,
        options,
        ignores_case: false,
        must_work: false,
    }
}

impl Variant {
    const fn must_work(self) -> Self {
        Variant {
            must_work: true,
            ..self
        }
    }

    /// All of them.
    pub const ALL: &[Variant] = &[
        variant("ext4", "ext4", &["-b", "4096"], "user_xattr").must_work(),
        variant("ext4-1k", "ext4", &["-b", "1024"], "user_xattr").must_work(),
        variant(
            "ext4-bigalloc",
            "ext4",
            &["-b", "4096", "-O", "bigalloc", "-C", "65536"],
            "user_xattr",
        )
        .must_work(),
        variant(
            "ext4-inline_data",
            "ext4",
            &["-b", "4096", "-I", "512", "-O", "inline_data"],
            "user_xattr",
        )
        .must_work(),
        variant(
            "ext4-data=journal",
            "ext4",
            &["-b", "4096"],
            "user_xattr,data=journal",
        ),
        Variant {
            ignores_case: true,
            ..variant(
                "ext4-casefold",
                "ext4",
                &["-b", "4096", "-O", "casefold"],
                "user_xattr",
            )
        },
        variant(
            "ext4-nodelalloc",
            "ext4",
            &["-b", "4096"],
            "user_xattr,nodelalloc",
        ),
        variant(
            "ext4-dioread_lock",
            "ext4",
            &["-b", "4096"],
            "user_xattr,dioread_lock",
        ),
        variant(
            "ext4-no_journal",
            "ext4",
            &["-b", "4096", "-O", "^has_journal"],
            "user_xattr",
        ),
        variant("xfs-reflink", "xfs", &["-m", "reflink=1"], "rw").must_work(),
        variant("xfs-1k", "xfs", &["-b", "size=1024"], "rw").must_work(),
        variant(
            "xfs-extsize",
            "xfs",
            &["-m", "reflink=0", "-d", "extszinherit=16"],
            "rw",
        )
        .must_work(),
        variant("btrfs", "btrfs", &[], "rw").must_work(),
        variant("btrfs-zstd", "btrfs", &[], "compress-force=zstd").must_work(),
        variant("btrfs-nodatacow", "btrfs", &[], "nodatacow"),
        variant("f2fs", "f2fs", &[], "rw"),
    ];

    /// What `mkfs.KIND` gets, without the device.
    #[must_use]
    pub fn mkfs_arguments(&self) -> Vec<&'static str> {
        let always: &[&str] = match self.kind {
            "ext4" => &[
                "-q",
                "-F",
                "-m",
                "0",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0",
            ],
            "xfs" | "f2fs" => &["-q", "-f"],
            _ => &["-q", "-f"],
        };
        [always, self.mkfs].concat()
    }

    /// What repairs it after its disk has failed, with the exit statuses that are good; nothing if mounting
    /// does.
    #[must_use]
    pub fn repair(&self) -> Option<(&'static [&'static str], &'static [i32])> {
        match self.kind {
            "ext4" => Some((&["e2fsck", "-f", "-y"], &[0, 1])),
            "f2fs" => Some((&["fsck.f2fs", "-f"], &[0])),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Variant::ALL.iter().map(|variant| variant.name).collect();
        assert_eq!(names.len(), Variant::ALL.len());
    }

    #[test]
    fn what_must_work_is_said_in_the_documentation() {
        let testing = include_str!("../../../../docs/testing.md");
        for variant in Variant::ALL.iter().filter(|variant| variant.must_work) {
            assert!(
                testing.contains(&format!("`{}`", variant.name)),
                "{}",
                variant.name
            );
        }
    }
}
