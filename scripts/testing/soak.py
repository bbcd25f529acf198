# SPDX-License-Identifier: MIT OR Apache-2.0
"""make soak: for a given time, runs whole what has run least recently, and failures first."""

import random
import time

from . import state
from .commands import Selftests
from .outcome import LEFT_OUT, SKIPPED, Outcome, Result
from .parts import BY_NAME, PARTS
from .plan import Entry
from .progress import clock, say

# The share of the time that repeating old failures may take.
FOR_FAILURES = 0.25
# Seconds that a slice may take longer than the time that is left, before it is ended.
GRACE = 300
SEEDS = 2**31


def failures_to_repeat(failures, known_parts=BY_NAME):
    """Entries with how often each is to run: a selftest alone as often as it takes to call it mended,
    all else as its slice, once, for two of one slice would write to the same files.
    """
    found = {}
    for failure in failures:
        part = known_parts.get(failure.part)
        if part is None or failure.slice > part.slices:
            continue
        words = (failure.test,) if isinstance(part.run, Selftests) else ()
        entry = Entry(part, 0 if words else failure.slice - 1, words)
        found[entry] = max(found.get(entry, 0), failure.wanted - failure.passes) if words else 1
    return list(found.items())


def next_entries(records, commit, parts=PARTS):
    """All slices that are missing of each part's round, in the order in which they are to run."""
    by_name = {part.name: part for part in parts}
    return [
        Entry(by_name[part.name], index)
        for part in state.order(state.states(records, parts, commit))
        for index in part.todo()
    ]


class Soak:
    """`seconds`: the time for all, set-up included.  Each task has a seed of its own, drawn from `seed`."""

    def __init__(self, session, seconds, seed):
        self._session, self._end = session, session.begun + seconds
        session.budget = seconds
        self._random, self._seconds = random.Random(seed), seconds

    def left(self):
        return self._end - time.monotonic()

    def _task(self, entry, name=None, until=0.0):
        """A task that does nothing once it would not end in time."""
        task = self._session.task(entry, self._known, name, repeat=True, seed=self._random.randrange(SEEDS))
        run = task.run

        def in_time():
            if self.left() - until < task.seconds:
                return Outcome([Result(task.name, SKIPPED, LEFT_OUT)])
            return run()

        return type(task)(task.name, task.title, task.lane, task.seconds, in_time, task.needs)

    def _run(self, tasks, entries):
        builds = self._session.build_tasks(entries)
        return self._session.run([*builds, *tasks], ordered=True)

    def repeat_failures(self):
        """Runs what has failed and is not mended.  False if the run was given up."""
        self._known = self._session.records.read()
        until = self._seconds * (1 - FOR_FAILURES)
        tasks, entries = [], []
        for entry, times in failures_to_repeat(state.open_failures(self._known)):
            entries.append(entry)
            tasks += [self._task(entry, f"{entry.tag} again {number}", until) for number in range(1, times + 1)]
        if tasks:
            say(f"soak: {len(entries)} that have failed before")
        return not tasks or self._run(tasks, entries)

    def rounds(self):
        """Runs parts until the time is over.  False if the run was given up."""
        commit, turn = self._session.c.commit.name, 0
        while True:
            self._known = self._session.records.read()
            entries = next_entries(self._known, commit)
            turn += 1
            tasks = [self._task(entry, f"{entry.tag} round {turn}" if turn > 1 else None) for entry in entries]
            if not any(task.seconds <= self.left() for task in tasks):
                return True
            say(f"soak: {len(tasks)} slices to run, {clock(self.left())} left")
            if not self._run(tasks, entries):
                return False


def time_is_over(soak, cancel, pause=5.0):
    """Calls `cancel` once the time and its grace are over; for a thread of its own."""
    while soak.left() > -GRACE:
        time.sleep(pause)
    cancel()


def show_state(session_records, commit, parts=PARTS, now=None):
    """Prints the table of soak-state."""
    now = time.time() if now is None else now
    records = session_records.read()
    failures = state.open_failures(records)
    for line in state.aligned(state.rows(state.states(records, parts, commit.name), failures, now)):
        say(line)
    say("")
    for failure in failures:
        say(state.described(failure, now))
    say(f"{len(records)} records in {session_records.path}; now on {commit.name}; + behind a commit: with changes")
    if session_records.unreadable:
        say(f"{session_records.unreadable} lines of it cannot be read and are ignored")
