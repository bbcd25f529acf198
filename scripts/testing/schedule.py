# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs tasks side by side: each when what it needs is done and its lane has a place."""

import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .outcome import SKIPPED, Outcome, Result, one
from .process import Cancelled

# How many tasks of a lane run at a time.  Commands of cargo wait for each other anyway, builds of
# the module share their objects; a guest keeps one processor busy, unless it waits most of the time.
LANES = {"cargo": 1, "kbuild": 1, "host": 1, "guest": os.cpu_count() or 1, "waiting": 1}
# Seconds between two looks when nothing ends.
HEARTBEAT = 30


@dataclass(frozen=True)
class Task:
    """`run()` gives the Outcome.  `needs`: names of tasks; `seconds`: what it will probably take."""

    name: str
    title: str
    lane: str
    seconds: float
    run: Callable[[], Outcome]
    needs: tuple[str, ...] = ()


def path(task, tasks):
    """The seconds from the begin of a task to the end of the longest chain of tasks that need it."""
    return task.seconds + max((path(other, tasks) for other in tasks if task.name in other.needs), default=0.0)


class Scheduler:
    """`report` is called in this thread: `ended(task, outcome, running)` for each task, `alive(running)` in
    between; `running`: pairs of a task and when it began (time.monotonic).

    `given`: outcomes by name that tasks may need and that are there already.  Of the tasks that
    could start, the one does that most time hangs on, its own and that of what needs it; with
    `ordered` the first in the list.
    """

    def __init__(self, tasks, report, given=None, ordered=False, lanes=None, heartbeat=HEARTBEAT):
        tasks = list(tasks)
        self._waiting = tasks if ordered else sorted(tasks, key=lambda task: -path(task, tasks))
        names = {task.name for task in self._waiting}
        assert len(names) == len(self._waiting), "two tasks have one name"
        self._report, self._lanes, self._heartbeat = report, dict(lanes or LANES), heartbeat
        self._ended, self._running = dict(given or {}), {}
        self._queue = queue.Queue()

    def run(self):
        """Runs all; returns the outcomes by name.  Raises what a task raises, Cancelled among it."""
        while self._waiting or self._running:
            self._skip_blocked()
            self._start_ready()
            if not self._running:
                continue
            try:
                task, outcome, error = self._queue.get(timeout=self._heartbeat)
            except queue.Empty:
                self._report.alive(list(self._running.values()))
                continue
            begun = self._running.pop(task.name)[1]
            if error is not None:
                raise error
            outcome.seconds = time.monotonic() - begun
            self._end(task, outcome)
        return self._ended

    def _end(self, task, outcome):
        self._ended[task.name] = outcome
        self._report.ended(task, outcome, list(self._running.values()))

    def _skip_blocked(self):
        """What needs something that has failed or is not there is skipped, and says so."""
        for task in list(self._waiting):
            known = {t.name for t in self._waiting} | set(self._ended) | set(self._running)
            bad = [n for n in task.needs if n not in known or (n in self._ended and _blocks(self._ended[n]))]
            if bad:
                self._waiting.remove(task)
                self._end(task, Outcome([Result(task.name, SKIPPED, f"not run: {bad[0]} has failed")]))

    def _start_ready(self):
        for task in list(self._waiting):
            used = sum(running.lane == task.lane for running, _ in self._running.values())
            if used < self._lanes[task.lane] and all(need in self._ended for need in task.needs):
                self._waiting.remove(task)
                self._running[task.name] = (task, time.monotonic())
                threading.Thread(target=self._work, args=(task,), daemon=True).start()

    def _work(self, task):
        try:
            self._queue.put((task, task.run(), None))
        except Cancelled as error:
            self._queue.put((task, None, error))
        except Exception as error:  # A fault of the runner is a failure of its task.
            self._queue.put((task, one(task.name, True, f"{type(error).__name__}: {error}"), None))


def _blocks(outcome):
    return outcome.failed or outcome.status == SKIPPED
