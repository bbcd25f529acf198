# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs selftests in guests: a guest that dies takes down the test that it was at, and no other."""

import subprocess

from . import ktap
from .outcome import FAILED, Outcome, Result

# Guests that one slice may need until it is given up.
MOST_GUESTS = 6
# Seconds for a guest, which is there for one that is dead: each selftest has its own deadline.
LONGEST = {"base": 1500, "debug": 3000, "stores": 1500, "stock": 1500}
# What the program may end with: all passed, something failed, all skipped.
ENDED = (0, 1, ktap.EXIT_SKIP)
# Results that vm/leak-check adds at the end.
LEAK_RESULTS = ("module_unload", "kmemleak", "kernel_log")


def all_names(c):
    run = subprocess.run([c.bin / "ondemand-selftest", "--list"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in run.stdout.splitlines()]


def select(names, words):
    """The names that begin with one of the words, in their order; `*` in a word stands for anything."""
    import fnmatch

    return [name for name in names if any(fnmatch.fnmatchcase(name, f"{word}*") for word in words)]


class Guests:
    """How selftests are run: kernel `base`, `debug`, `stores` or `stock`, backend `rust` or `c`; `options`: others of
    vm/run, as for the disk of the caches."""

    def __init__(self, c, kind="base", backend="rust", setup=(), smack=False, options=()):
        self.c, self.kind, self.backend, self.setup, self.smack = c, kind, backend, setup, smack
        self.options = tuple(options)
        # Only the debug kernel has kmemleak.
        self.leak_check = kind == "debug" and backend == "rust"

    def names(self):
        """The tests that are for this kind of guest: those for Smack need a kernel that has it enabled."""
        return [name for name in all_names(self.c) if name.startswith("smack_") == self.smack]

    def command(self, tag, names):
        c, kernel = self.c, self.c.kernel(self.kind)
        words = [c.script("vm/run"), "--kernel", kernel, "--backend", self.backend]
        words += ["--module", c.modules[self.kind], "--timeout", LONGEST[self.kind]]
        words += ["--results", c.results / tag, "--log", c.logs / f"vm-{tag}.log"]
        words += [*self.options, *(["--append", "lsm=smack"] if self.smack else [])]
        words += ["--leak-check"] if self.leak_check else []
        words += ["--", c.bin / "ondemand-selftest"]
        other = kernel / "fs/cachefiles/cachefiles.ko" if self.backend == "rust" else c.modules[self.kind]
        words += ["--expect-c"] if self.backend == "c" else []
        words += ["--other-module", other]
        for command in self.setup:
            words += ["--setup", command]
        return words + list(names)

    def guest(self, tag, names):
        """One guest: its status and what it has found."""
        log = self.c.results / f"{tag}.ktap"
        status = self.c.processes.run(self.command(tag, names), log, LONGEST[self.kind] + 600)
        with open(log, errors="replace") as lines:
            parsed = ktap.parse(lines)
        return status, Outcome(parsed.results, parsed.events, parsed.surprises, log=str(log))

    def run(self, tag, names):
        """All of `names`, in as many guests as that takes."""
        left, total = list(names), Outcome()
        for number in range(1, MOST_GUESTS + 1):
            status, outcome = self.guest(tag if number == 1 else f"{tag}-{number}", left)
            total.add(outcome)
            total.log = outcome.log
            done = {result.name for result in outcome.results}
            left = [name for name in left if name not in done]
            if not left:
                if self.leak_check and not done.issuperset(LEAK_RESULTS):
                    total.results.append(Result("leak_check", FAILED, f"status {status} while the module was unloaded"))
                elif status not in ENDED:
                    total.results.append(Result("guest_end", FAILED, f"status {status} after the last result"))
                return total
            # Out of time, but not for want of progress: the rest goes on.
            if status == 124 and done:
                continue
            # What has no result and comes first is what the guest was at.
            total.results.append(Result(left.pop(0), FAILED, f"no result: the guest ended with status {status}"))
            if not left:
                return total
        total.results += [Result(name, FAILED, "not run: too many guests have ended early") for name in left]
        return total
