# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs commands, each in a session of its own, with its output in a file and a deadline."""

import copy
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from .speed import Deadline

# The status of a command that was ended at its deadline, as of timeout(1).
TIMED_OUT = 124
# Seconds between SIGTERM and SIGKILL.
GRACE = 10.0


class Cancelled(Exception):
    """The run is being given up: no command may start, and all were ended."""


class Processes:
    """All commands of a run.  Any thread may run one; `cancel` ends them all."""

    def __init__(self, environment, cwd):
        self._environment, self._cwd = environment, cwd
        self._lock = threading.Lock()
        self._running = set()
        self._cancelled = threading.Event()

    def with_environment(self, words):
        """The same, whose commands have these variables, too; `cancel` of either ends all."""
        other = copy.copy(self)
        other._environment = {**self._environment, **words}
        return other

    def run(self, argv, log, seconds, nice=0, append=False):
        """The status of `argv`, with all that it prints in the file `log`.

        `seconds`: the deadline on the reference machine; at its end the whole session gets
        SIGTERM, then SIGKILL, and the status is TIMED_OUT.  Raises Cancelled.
        """
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        if nice:
            argv = ["nice", "-n", str(nice), *argv]
        with open(log, "ab" if append else "wb") as output:
            with self._lock:
                if self._cancelled.is_set():
                    raise Cancelled
                process = subprocess.Popen(
                    [str(word) for word in argv],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd=self._cwd,
                    env=self._environment,
                )
                self._running.add(process)
            try:
                return self._wait(process, Deadline(seconds), output)
            finally:
                with self._lock:
                    self._running.discard(process)

    def _wait(self, process, deadline, output):
        while (left := deadline.remaining()) > 0:
            try:
                status = process.wait(min(left, 5.0))
            except subprocess.TimeoutExpired:
                continue
            if self._cancelled.is_set():
                raise Cancelled
            return 128 - status if status < 0 else status
        output.write(f"\n# not done within {deadline}\n".encode())
        _end([process])
        return TIMED_OUT

    def cancel(self):
        """Ends all commands; those that wait for one get Cancelled."""
        with self._lock:
            self._cancelled.set()
            running = list(self._running)
        _end(running)


def _signal(process, number):
    try:
        os.killpg(process.pid, number)
    except OSError:
        pass


def _end(processes):
    for process in processes:
        _signal(process, signal.SIGTERM)
    end = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(end - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                pass  # In state D: the cleanup process reports what cannot be ended.
