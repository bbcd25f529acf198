# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a run of something has found: results by name, and events that were counted."""

from collections import Counter
from dataclasses import dataclass, field

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
# It failed, and passed when it was repeated alone.
UNSTABLE = "unstable"
# A defect of the C module that is listed as known.
KNOWN = "known"
# The reason of what has not begun since it would not have ended in time: it counts as nothing.
LEFT_OUT = "left out: no time"


@dataclass(frozen=True)
class Result:
    """One test.  `reason`: one line; `detail`: what the test printed, oldest first."""

    name: str
    status: str
    reason: str = ""
    detail: tuple[str, ...] = ()


@dataclass
class Outcome:
    """Everything that one run has found.

    `events` counts what happened by kind: kills, executions, situations, points (results of
    guests), cuts.  `log` is where the whole output is.
    """

    results: list[Result] = field(default_factory=list)
    events: Counter = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    seconds: float = 0.0
    log: str = ""

    def add(self, other):
        """Takes over what another run has found; the log stays this one's."""
        self.results += other.results
        self.events.update(other.events)
        self.surprises += other.surprises
        self.seconds += other.seconds

    def count(self, status):
        return sum(result.status == status for result in self.results)

    def named(self, status):
        return [result.name for result in self.results if result.status == status]

    @property
    def left_out(self):
        return any(result.reason == LEFT_OUT for result in self.results)

    @property
    def failed(self):
        return any(result.status == FAILED for result in self.results)

    @property
    def status(self):
        """The worst that is in it: failed, unstable, passed, or skipped if nothing ran."""
        for status in (FAILED, UNSTABLE, PASSED, KNOWN):
            if self.count(status):
                return PASSED if status == KNOWN else status
        return SKIPPED

    def summary(self):
        """ "12 passed, 1 failed": the kinds that are there."""
        kinds = (PASSED, FAILED, UNSTABLE, SKIPPED, KNOWN)
        counts = [f"{self.count(kind)} {kind}" for kind in kinds if self.count(kind)]
        return ", ".join(counts) or "no result"


def one(name, failed, reason="", detail=(), log=""):
    """An outcome of a single result."""
    status = FAILED if failed else PASSED
    return Outcome([Result(name, status, reason, tuple(detail))], log=log)
