# SPDX-License-Identifier: MIT OR Apache-2.0
"""Shows what runs and how far all of it is, as a share of the expected time."""

import re
import sys
import time
from pathlib import Path

from .outcome import FAILED, SKIPPED, UNSTABLE

WORDS = {FAILED: "FAILED", UNSTABLE: "unstable", SKIPPED: "skipped"}
COUNTED = re.compile(r"^(?:not )?ok ", re.M)


def file_name(task):
    """How the files of a task are called: its name, without what a file name should not have."""
    return re.sub(r"[^\w.-]+", "-", task)


def clock(seconds):
    """12s or 3m05s."""
    seconds = int(seconds)
    return f"{seconds}s" if seconds < 60 else f"{seconds // 60}m{seconds % 60:02}s"


def share_done(done, running, total):
    """The share in percent, 0 to 99 while something runs.

    `done`, `total`: expected seconds; `running`: pairs of expected and elapsed seconds, which
    count until 95 % of what was expected.
    """
    if total <= 0:
        return 0
    begun = sum(min(elapsed, 0.95 * expected) for expected, elapsed in running)
    return min(int(100 * (done + begun) / total), 99)


class Progress:
    """Prints a line for each task that ends, and now and then what is running.

    `budget`: the seconds that all may take, for what runs until its time is over; the share is
    that of the time then.
    """

    def __init__(self, tasks, results=None, budget=None, begun=None, write=None, now=time.monotonic):
        self._total = sum(task.seconds for task in tasks)
        self._count, self._left = 0, len(tasks)
        self._done, self._results, self._now = 0.0, results, now
        self._budget, self._begun = budget, now() if begun is None else begun
        self._write = write or (lambda line: print(line, flush=True))

    def share(self, running=()):
        now = self._now()
        if self._budget:
            return min(int(100 * (now - self._begun) / self._budget), 100)
        pairs = [(task.seconds, now - begun) for task, begun in running]
        return 100 if self._count == self._left else share_done(self._done, pairs, self._total)

    def _line(self, share, text):
        self._write(f"[{share:3} % {clock(self._now() - self._begun):>6}] {text}")

    def ended(self, task, outcome, running=()):
        self._done += task.seconds
        self._count += 1
        if outcome.left_out:
            return
        word = WORDS.get(outcome.status, "ok")
        summary = outcome.summary()
        self._line(self.share(running), f"{word:8} {task.name:24} {clock(outcome.seconds):>6}  {summary}")
        for result in outcome.results:
            if result.status in (FAILED, UNSTABLE):
                self._write(f"                 {result.status}: {result.name}: {result.reason}")

    def alive(self, running):
        told = [self._describe(task, begun) for task, begun in running]
        self._line(self.share(running), f"running: {', '.join(told)}")

    def _describe(self, task, begun):
        """ "selftests/1 2m03s, 40 results": its results so far, if it prints them."""
        text = f"{task.name} {clock(self._now() - begun)}"
        file = self._results and Path(self._results, f"{file_name(task.name)}.ktap")
        try:
            counted = len(COUNTED.findall(file.read_text(errors="replace"))) if file else 0
        except OSError:
            counted = 0
        return f"{text} ({counted} results)" if counted else text


def say(text):
    print(text, flush=True)


def warn(text):
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)
