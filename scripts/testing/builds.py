# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is built before parts can run.  Each build is one test: it must not warn."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from .context import REPO
from .outcome import one

WARNING = re.compile(r"(^|[^-])\bwarning: ")
# Seconds that a build may take, with nothing in the cache.
LONGEST = 2400
GUEST_PROGRAMS = ("ondemand-selftest", "ondemand-store", "ondemand-faults", "ondemand-matrix", "ondemandd", "storm")


def quiet_command(c, name, argv, nice=0):
    """Runs a command that fails, too, if it warns.  One result."""
    log = c.logs / f"{name}.log"
    status = c.processes.run(argv, log, LONGEST, nice)
    lines = log.read_text(errors="replace").splitlines()
    warned = [line for line in lines if WARNING.search(line)]
    reason = f"status {status}" if status else f"it warned: {warned[0].strip()}" if warned else ""
    return one(name, bool(reason), reason, lines[-25:], str(log))


def _make_module(c, *words):
    kernel = c.kernel("base")
    return ["make", "-C", REPO, "--no-print-directory", f"KDIR={kernel}", *words, "module"]


def lint_module(c, name):
    """Compiles the module under clippy; must not run beside `module`, whose objects it replaces."""
    return quiet_command(c, name, _make_module(c, "CLIPPY=1"))


def module(c, name):
    """The module for the base kernel, copied to where no later build changes it."""
    outcome = quiet_command(c, name, _make_module(c))
    if not outcome.failed:
        c.modules["base"] = _frozen(c, REPO / "cachefiles_ondemand.ko", "base")
    return outcome


def module_for(kind):
    """The module for another kernel than the base kernel."""

    def build(c, name):
        outcome = quiet_command(c, name, [c.script("module-copy"), c.kernel(kind)])
        if not outcome.failed:
            built = (c.logs / f"{name}.log").read_text().splitlines()[-1]
            c.modules[kind] = _frozen(c, built, kind)
        return outcome

    return build


def module_stock(c, name):
    """The module for Debian's own kernel, and the erofs that is kept beside that."""
    outcome = quiet_command(c, name, [c.script("kernel/stock"), "--modules"])
    if not outcome.failed:
        c.modules["stock"] = _frozen(c, (c.logs / f"{name}.log").read_text().splitlines()[-1], "stock")
    return outcome


def _frozen(c, built, kind):
    target = c.results / "bin" / kind / "cachefiles_ondemand.ko"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(built, target)
    return target


def test_selection(c):
    """How cargo and nextest name the same build: the programs of guests and the tests of the host."""
    return [
        "--workspace", "--bins", "--lib", "--tests", "--target", c.words["PROGRAM_TARGET"],
        "--config", c.words["PROGRAM_FLAGS"],
    ]  # fmt: skip


def programs(c, name):
    """All programs and tests of user space, in one build; the programs are copied for the guests."""
    argv = c.cargo("build", "--profile", c.words["CHECKED_PROFILE"], *test_selection(c))
    outcome = quiet_command(c, name, argv)
    if not outcome.failed:
        target = c.results / "bin"
        target.mkdir(parents=True, exist_ok=True)
        for program in GUEST_PROGRAMS:
            shutil.copy2(f"{c.words['CHECKED_PROGRAMS']}/{program}", target / program)
        c.bin = target
    return outcome


def fuzz_targets(c, name):
    return quiet_command(c, name, [c.script("fuzz"), "--build"])


@dataclass(frozen=True)
class Build:
    """`again`: the command that repeats it by hand."""

    title: str
    run: Callable
    lane: str
    seconds: int
    again: str
    needs: tuple[str, ...] = ()


BUILDS = {
    "clippy-module": Build("module: clippy, without warnings", lint_module, "kbuild", 25, "make CLIPPY=1 module"),
    "module": Build("module, without warnings", module, "kbuild", 15, "make module", ("clippy-module",)),
    "module-debug": Build("module for the debug kernel", module_for("debug"), "kbuild", 25,
                          "scripts/module-copy $(scripts/kernel/build --debug --path)"),
    "module-stores": Build("module for the kernel with more disks and file systems", module_for("stores"), "kbuild", 25,
                           "scripts/module-copy $(scripts/kernel/build --stores --path)"),
    "module-stock": Build("module for Debian's own kernel, and its erofs", module_stock, "kbuild", 30,
                          "scripts/kernel/stock --modules"),
    "programs": Build("user space: programs and tests", programs, "cargo", 150, "scripts/test unit"),
    "fuzz-targets": Build("fuzz targets", fuzz_targets, "cargo", 25, "scripts/fuzz --build"),
}  # fmt: skip
