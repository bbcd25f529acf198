# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where things are, and the options of a run: handed to everything that runs."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
# What scripts/lib.sh knows: it is asked, so that no path or version stands in two places.
SHELL_WORDS = (
    "PATH HOME CACHE LOGS NGINX MOTO CARGO_DENY NEXTEST PROGRAM_TARGET PROGRAM_FLAGS CHECKED_PROFILE"
    " CHECKED_PROGRAMS"
).split()


def shell_words():
    """The variables SHELL_WORDS of scripts/lib.sh."""
    script = '. "$0" && for name; do printf "%s\\0" "${!name}"; done'
    output = subprocess.run(
        ["bash", "-c", script, REPO / "scripts/lib.sh", *SHELL_WORDS], capture_output=True, check=True
    ).stdout
    return dict(zip(SHELL_WORDS, output.decode().split("\0")))


def git(*words):
    """What git says of this repository; empty without git or a repository."""
    run = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", REPO, *words], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() if run.returncode == 0 else ""


@dataclass(frozen=True)
class Commit:
    """What is tested.  `number`: how many commits lead to it; 0 without a repository."""

    name: str
    number: int
    dirty: bool

    @classmethod
    def here(cls):
        return cls(
            git("rev-parse", "--short=12", "HEAD") or "unknown",
            int(git("rev-list", "--count", "HEAD") or 0),
            bool(git("status", "--porcelain")),
        )


@dataclass
class Context:
    """`seed`: for everything that draws numbers.  `setup`: commands for each device that a
    selftest opens.  `kernels`, `modules`: by kind, `base`, `debug` and `stores`; `bin`: the programs of guests."""

    words: dict
    commit: Commit
    seed: int
    results: Path
    processes: object = None
    setup: tuple[str, ...] = ()
    kernels: dict = field(default_factory=dict)
    modules: dict = field(default_factory=dict)
    bin: Path | None = None

    @property
    def cache(self):
        return Path(self.words["CACHE"])

    @property
    def logs(self):
        return Path(self.words["LOGS"])

    def script(self, name):
        return REPO / "scripts" / name

    def cargo(self, *words):
        """A cargo command for the workspace, as all that this runner builds."""
        return ["cargo", *words[:1], "--locked", "--manifest-path", REPO / "user/Cargo.toml", *words[1:]]

    def kernel(self, kind):
        """The build directory of a kernel, by kind.  RuntimeError if it is not built."""
        if kind not in self.kernels:
            flags = [] if kind == "base" else [f"--{kind}"]
            run = subprocess.run(
                [self.script("kernel/build"), *flags, "--path"], capture_output=True, text=True, check=False
            )
            if run.returncode:
                raise RuntimeError(f"the {kind} kernel is not built")
            self.kernels[kind] = Path(run.stdout.strip())
        return self.kernels[kind]

    def environment(self, mark_name, mark, temporary):
        """What every command of this run inherits."""
        inherited = {k: v for k, v in os.environ.items() if k not in ("RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER")}
        return {
            **inherited,
            "PATH": self.words["PATH"],
            "HOME": self.words["HOME"],
            "LOGS": str(self.logs),
            "TMPDIR": str(temporary),
            "CARGO_TERM_COLOR": "never",
            mark_name: mark,
        }
