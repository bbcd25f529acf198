# SPDX-License-Identifier: MIT OR Apache-2.0
"""Leaves nothing behind: ends the processes of a run and removes its files when the run is gone.

A run marks its processes: each inherits MARK in its environment.  A process of its own, the
cleanup process, holds the read end of a pipe; the run holds the only write end.  However the run ends,
by SIGKILL too, the pipe is closed then, and that process ends all that have the mark, unmounts
what is mounted below the run's directories and removes them.

    python3 -m testing.cleanup MARK DIR...    (standard input: the pipe)
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "ONDEMAND_RUN"
# Seconds in which a process that got SIGTERM may clean up itself.
GRACE = 5.0
# Seconds for all to be gone after SIGKILL; a process in state D may take longer and is reported.
GONE = 15.0


def marked(mark, spare=()):
    """The pids of all processes, zombies aside, whose environment has the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in spare:
            continue
        try:
            environment = Path("/proc", entry, "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            found.append(int(entry))
    return found


def end_marked(mark, spare=()):
    """Ends them: SIGTERM, and SIGKILL after GRACE.  Returns those that are still there."""
    begun = time.monotonic()
    left = marked(mark, spare)
    signalled = set()
    while left and time.monotonic() - begun < GRACE + GONE:
        kill = time.monotonic() - begun >= GRACE
        for pid in left:
            # New ones may appear meanwhile: each gets SIGTERM once.
            if kill or pid not in signalled:
                signalled.add(pid)
                try:
                    os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
                except OSError:
                    pass
        time.sleep(0.1)
        left = marked(mark, spare)
    return left


def unmount_below(directories):
    """Unmounts what is mounted below them, the innermost first."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    points = [line.split()[1].encode().decode("unicode_escape") for line in lines]
    for point in sorted(points, key=len, reverse=True):
        if any(point.startswith(f"{directory}/") for directory in directories):
            subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)


def clean_up(mark, directories, spare=()):
    """Everything that the cleanup process does.  Returns the pids that could not be ended."""
    left = end_marked(mark, spare)
    unmount_below(directories)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    return left


class CleanupProcess:
    """The run's side: starts the cleanup process; `close` has it begin now, and waits for it."""

    def __init__(self, mark, directories):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testing.cleanup", mark, *map(str, directories)],
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if k != MARK},
        )

    def close(self):
        """Returns whether all processes are gone."""
        self._process.stdin.close()
        return self._process.wait(GRACE + GONE + 30) == 0


def main():
    mark, directories = sys.argv[1], sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # Ends when the last write end is closed; nothing is ever written.
    while sys.stdin.buffer.read(4096):
        pass
    return 1 if clean_up(mark, directories) else 0


if __name__ == "__main__":
    sys.exit(main())
