# SPDX-License-Identifier: MIT OR Apache-2.0
"""The kinds of commands that parts are made of.

Each function here returns `run(c, index, tag)`: it runs slice `index` (from 0) with its files
named after `tag` and returns an Outcome.
"""

from . import junit, ktap
from .builds import test_selection
from .context import REPO
from .outcome import FAILED, Outcome, Result, one
from .selftests import Guests

# Seconds for what runs on the host, and for a script with guests of its own.  They end what
# hangs; what is only slow has deadlines of its own.
HOST, SCRIPT = 900, 3600
# Host commands give way to guests: a guest that shares its processor measures a slow machine, and
# tests that wait for a deadline to pass then wait longer.
NICE = 15


def item(argv):
    """A command on the host that is one test; `argv(c)`."""

    def run(c, _index, tag):
        log = c.logs / f"{tag}.log"
        status = c.processes.run(argv(c), log, HOST, NICE)
        lines = log.read_text(errors="replace").splitlines()
        nonempty = [line for line in lines if line.strip()]
        # A compiler says what is wrong first, a checker last.
        reason = next((line for line in nonempty if line.startswith("error")), nonempty[-1] if nonempty else "")
        outcome = one(tag, status != 0, f"status {status}: {reason}"[:300], lines[-25:], str(log))
        for line in lines:
            outcome.events.update(ktap.events_of(line) or {})
        return outcome

    return run


def script(argv):
    """A script that prints KTAP; `argv(c, index)`."""

    def run(c, index, tag):
        log = c.results / f"{tag}.ktap"
        status = c.processes.run(argv(c, index), log, SCRIPT)
        with open(log, errors="replace") as lines:
            return ktap.outcome_of_script(tag, lines, status, str(log))

    return run


def unit_tests(c, _index, tag):
    """cargo nextest, on what the build `programs` has made."""
    # Below the workspace, wherever CARGO_TARGET_DIR is.
    target = REPO / "user/target/nextest/ci/junit.xml"
    target.unlink(missing_ok=True)
    argv = [c.words["NEXTEST"], "nextest", "run", "--locked", "--manifest-path", REPO / "user/Cargo.toml"]
    argv += ["--profile", "ci", "--cargo-profile", c.words["CHECKED_PROFILE"], "--color", "never", *test_selection(c)]
    log = c.logs / f"{tag}.log"
    status = c.processes.run(argv, log, HOST, NICE)
    try:
        outcome = junit.outcome_of_file(target)
    except (OSError, SyntaxError) as error:
        outcome = Outcome([Result(tag, FAILED, f"no results: {error}")])
    if status and not outcome.failed:
        outcome.results.append(Result(tag, FAILED, f"status {status}, and no test says why"))
    outcome.log = str(log)
    return outcome


def machine(c, name, command, seconds, kind="base", backend="rust", append=(), leak_check=False, options=()):
    """A command in a guest of its own.  `leak_check`: then the module is unloaded, and what it has left behind
    is looked for.  `options`: others of vm/run."""
    words = [c.script("vm/run"), "--kernel", c.kernel(kind), "--backend", backend]
    words += ["--module", c.modules[kind], "--timeout", seconds, "--results", c.results / name]
    words += ["--log", c.logs / f"vm-{name}.log"]
    for option in append:
        words += ["--append", option]
    words += ["--leak-check"] if leak_check else []
    return [*words, *options, "--", *command]


# Scripts that wait most of the time: processor time is a fifth of what they take.
WAITING_SCRIPTS = ("remote",)


def daemon_script(name, backend="rust"):
    """user/ondemandd/tests/NAME.sh in a guest."""
    tests = REPO / "user/ondemandd/tests"

    def argv(c, _index):
        command = ["bash", tests / f"{name}.sh", c.bin / "ondemandd"]
        append = ["lsm=landlock"] if name in ("sandbox", "systemd") else []
        if append:
            command.append("required")
        if name == "remote":
            command += [c.words["NGINX"], f"{c.words['MOTO']}/bin/python"]
        if name == "systemd":
            command = ["bash", tests / "under-systemd", *command]
        prefix = "" if backend == "rust" else f"{backend}-"
        waits = ("--waits",) if name in WAITING_SCRIPTS else ()
        return machine(c, f"{prefix}daemon-{name}", command, 1800, "base", backend, append, options=waits)

    return script(argv)


# The beginnings of the names of selftests that wait for deadlines of requests, for 10 s and more on a slow machine.
WAITING = ("d12_mount_ends", "d17_", "d18_many_expire")


class Selftests:
    """A slice of the selftests; the slices take turns at the list, so that each has some of every subject.

    `disks`: instead, each slice runs all tests, on another disk: options of vm/run.
    `waiting`: those alone that wait most of the time, in guests that are not counted (True), or all but
    them (False)."""

    def __init__(self, slices, kind="base", backend="rust", setup=(), smack=False, disks=(), waiting=None):
        self._slices, self._options, self._disks = slices, (kind, backend, tuple(setup), smack), disks
        self._waiting = waiting

    def _guests(self, c, index=0):
        kind, backend, setup, smack = self._options
        options = self._disks[index] if self._disks else ("--waits",) if self._waiting else ()
        return Guests(c, kind, backend, setup or c.setup, smack, options)

    def __call__(self, c, index, tag):
        guests = self._guests(c, index)
        names = guests.names()
        if self._waiting is not None:
            names = [name for name in names if name.startswith(WAITING) == self._waiting]
        return guests.run(tag, names if self._disks else names[index :: self._slices])

    def named(self, c, tag, names):
        """These tests alone, in a guest of their own."""
        return self._guests(c).run(tag, names)

    def names(self, c):
        return self._guests(c).names()
