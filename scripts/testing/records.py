# SPDX-License-Identifier: MIT OR Apache-2.0
"""The results file: a line of JSON for each slice that has ended, in the cache directory.

Lines are only ever appended, each by one write under a lock, and synced: a run that is cut off
loses nothing that was finished.
"""

import fcntl
import json
import os
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .outcome import FAILED, KNOWN, PASSED, SKIPPED, UNSTABLE


@dataclass(frozen=True)
class Record:
    """`when`: seconds since 1970, at the end.  `by`: test, ci or soak.  `part`, `slice` (from 1),
    `slices`: what ran.  `selected`: it was not all of the slice, but some tests by name."""

    when: float
    by: str
    part: str
    slice: int
    slices: int
    commit: str
    number: int
    dirty: bool
    seed: int
    status: str
    seconds: float
    passed: int = 0
    skipped: int = 0
    known: int = 0
    failed_tests: tuple[str, ...] = ()
    unstable_tests: tuple[str, ...] = ()
    passed_tests: tuple[str, ...] = ()
    events: dict = field(default_factory=dict)
    selected: bool = False

    @property
    def tag(self):
        return f"{self.part}/{self.slice}" if self.slices > 1 else self.part


def of(part, index, outcome, commit, seed, by, selected=False, open_tests=()):
    """The record of an outcome.  `open_tests`: names whose success is worth a word, since they
    have failed before."""
    passed = set(outcome.named(PASSED))
    return Record(
        when=round(time.time(), 1),
        by=by,
        part=part.name,
        slice=index + 1,
        slices=part.slices,
        commit=commit.name,
        number=commit.number,
        dirty=commit.dirty,
        seed=seed,
        status=outcome.status,
        seconds=round(outcome.seconds, 1),
        passed=outcome.count(PASSED),
        skipped=outcome.count(SKIPPED),
        known=outcome.count(KNOWN),
        failed_tests=tuple(outcome.named(FAILED)),
        unstable_tests=tuple(outcome.named(UNSTABLE)),
        passed_tests=tuple(sorted(passed & set(open_tests))),
        events=dict(outcome.events),
        selected=selected,
    )


class Records:
    """The file.  `read` skips lines that it cannot read, and counts them in `unreadable`."""

    def __init__(self, path):
        self.path = Path(path)
        self.unreadable = 0

    def append(self, record):
        line = json.dumps(asdict(record), separators=(",", ":")) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # A line that a full disk or a power cut has left without its end spoils no other.
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self):
        self.unreadable = 0
        records = []
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return records
        for line in lines:
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
                records.append(Record(**values))
            except (ValueError, TypeError, AttributeError):
                self.unreadable += 1
        return records


def expected_seconds(records, part, index):
    """What a slice will take: the median of its last five whole runs, else what the part says."""
    mine = [r for r in records if r.part == part.name and not r.selected and r.status != SKIPPED]
    same = [r.seconds for r in mine if r.slice == index + 1] or [r.seconds for r in mine]
    return statistics.median(same[-5:]) if same else float(part.seconds)
