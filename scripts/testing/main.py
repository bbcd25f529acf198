# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command lines of scripts/test and scripts/soak."""

import argparse
import random
import threading
import time
import unittest
from pathlib import Path

from . import plan, soak
from .context import Commit, shell_words
from .parts import OTHER_KERNELS, PARTS, SLICED, TEST
from .progress import clock, say
from .records import Records
from .session import Interrupted, Session

# Seconds for .ci/run after set-up and kernels: what hangs in spite of all deadlines is ended.
CI_LONGEST = 80 * 60


def list_parts():
    for tier, title in ((TEST, "make test"), (SLICED, ".ci/run: a slice with each commit"), ("soak", "make soak alone")):
        say(f"{title}:")
        for part in PARTS:
            if part.tier == tier:
                slices = f"{part.slices} slices of " if part.slices > 1 else ""
                say(f"  {part.name:26} {part.title} ({slices}about {clock(part.seconds)})")


def self_test():
    """The tests of the runner itself."""
    suite = unittest.defaultTestLoader.discover(str(Path(__file__).parent / "tests"), top_level_dir=str(Path(__file__).parents[1]))
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    say(f"{result.testsRun - len(result.failures) - len(result.errors)} passed, {len(result.failures) + len(result.errors)} failed")
    return int(not result.wasSuccessful() or result.testsRun == 0)


def test_options(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/test", description="Sets up, builds and runs tests; the last line is the sum.",
        epilog="NAME: a part (storm-debug), a slice (storm-debug/3), selftests of a part (selftests-debug:d05,read_) "
        "or the beginning of selftests' names (d05).  Without: all of make test.",
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="name the parts")
    parser.add_argument("--ci", action="store_true", help="what .ci/run does: make test and the slices of this commit")
    parser.add_argument("--number", type=int, help="with --ci: the slices of the commit with this number")
    parser.add_argument("--missing", action="store_true", help="only slices that have not passed on this commit; all, if none is missing")
    parser.add_argument("--debug", action="store_true", help="on the debug kernel: selftests, storm; and the fuzzer")
    parser.add_argument("--host", action="store_true", help="what needs no virtual machine")
    parser.add_argument("--backend", choices=("rust", "c"), default="rust", help="c: the kernel's own cachefiles")
    parser.add_argument("--setup", action="append", default=[], metavar="COMMAND", help='selftests in a mode, as "fill buffered"')
    parser.add_argument("--seed", type=int, help="for all that draws numbers (the commit's number)")
    parser.add_argument("--self-test", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.number is not None and not options.ci:
        parser.error("--number goes with --ci")
    try:
        options.entries = [] if options.ci or options.list or options.self_test else plan.of_options(options)
    except plan.Unknown as error:
        parser.error(str(error))
    return options


def end_after(seconds, session):
    """Gives the run up after so many seconds, from a thread of its own."""

    def wait():
        time.sleep(seconds)
        session.c.processes.cancel()

    threading.Thread(target=wait, daemon=True).start()


def run_entries(session, entries):
    """Prepares, builds and runs; the exit status."""
    tasks = []
    try:
        if session.prepare(session.kinds(entries)):
            known = session.records.read()
            tasks = [*session.build_tasks(entries), *(session.task(entry, known) for entry in entries)]
            session.run(tasks)
    except Interrupted as signal:
        say(f"test: ended by signal {signal}")
        session.close(tasks)
        return 130
    return session.close(tasks)


def test(arguments):
    options = test_options(arguments)
    if options.list:
        return list_parts() or 0
    if options.self_test:
        return self_test()
    commit = Commit.here()
    by = "ci" if options.ci else "test"
    entries = options.entries
    if options.missing:
        asked, records = len(entries), Records(Path(shell_words()["CACHE"], "results.jsonl"))
        entries = plan.missing(entries, records.read(), commit)
        say(f"test: {len(entries)} of {asked} slices to run on commit {commit.name}")
    if options.ci:
        number = commit.number if options.number is None else options.number
        entries = plan.of_commit(number)
        slices = " ".join(entry.tag for entry in entries if entry.part.tier == SLICED)
        say(f"ci: commit {commit.number}, {commit.name}: make test, and of what is longer {slices}")
    with Session(by, options.seed, options.setup) as session:
        if options.ci:
            end_after(CI_LONGEST, session)
        return run_entries(session, entries)


def soak_options(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description="Runs everything whole, what has run least recently first, failures first of all."
    )
    parser.add_argument("--hours", type=float, default=1.0, help="how long; nothing begins that would end later (1)")
    parser.add_argument("--seed", type=int, help="all other seeds are drawn from it (a random one, which is printed)")
    parser.add_argument("--state", action="store_true", help="show when each part last ran whole, and what has failed")
    options = parser.parse_args(arguments)
    if not 0 < options.hours <= 1000:
        parser.error("--hours is more than 0, and at most 1000")
    return options


def run_soak(arguments):
    options = soak_options(arguments)
    if options.state:
        soak.show_state(Records(Path(shell_words()["CACHE"], "results.jsonl")), Commit.here())
        return 0
    seed = options.seed if options.seed is not None else random.randrange(soak.SEEDS)
    status = 130
    with Session("soak", seed) as session:
        say(f"soak: {clock(options.hours * 3600)}, commit {session.c.commit.name}, seed {seed}")
        soaking = soak.Soak(session, options.hours * 3600, seed)
        threading.Thread(target=soak.time_is_over, args=(soaking, session.c.processes.cancel), daemon=True).start()
        try:
            if session.prepare(("base", *OTHER_KERNELS)):
                _ = soaking.repeat_failures() and soaking.rounds()
            status = session.close()
        except Interrupted as signal:
            say(f"soak: ended by signal {signal}; what has ended is kept")
            session.close()
    say("scripts/soak --state shows what has run")
    return status
