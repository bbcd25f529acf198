# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the records say of each part: when it last ran whole, what has failed and is not mended.

Nothing here reads a file or a clock.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from .outcome import FAILED, SKIPPED, UNSTABLE

# An unstable test is mended when it has passed so often in a row, on other commits than the one
# that it has failed on.  What fails every fourth time is found with 94 %.
MEND_RUNS = 10


@dataclass(frozen=True)
class Open:
    """A test that has failed, or was unstable, and is not known to be mended.

    `passes`: how often it has passed on other commits since.
    """

    part: str
    test: str
    slice: int
    status: str
    commit: str
    when: float
    passes: int = 0

    @property
    def wanted(self):
        """Passes until it counts as mended: one shows that what always failed does so no more."""
        return MEND_RUNS if self.status == UNSTABLE else 1


def _whole(record):
    """Whether the record is of a slice that ran to its end."""
    return not record.selected and record.status != SKIPPED


def open_failures(records):
    """All that is not mended, the oldest first."""
    found = {}
    covered = {}
    for record in sorted(records, key=lambda record: record.when):
        mentioned = {*record.failed_tests, *record.unstable_tests, *record.passed_tests}
        for status, names in ((FAILED, record.failed_tests), (UNSTABLE, record.unstable_tests)):
            for test in names:
                key = (record.part, test)
                was = found.get(key)
                worst = UNSTABLE if was and was.status == UNSTABLE else status
                found[key] = Open(record.part, test, record.slice, worst, record.commit, record.when)
                covered[key] = set()
        for key, was in list(found.items()):
            if key[0] != record.part or record.commit == was.commit:
                continue
            if was.test in record.passed_tests:
                found[key] = was = replace(was, passes=was.passes + 1)
            elif was.test not in mentioned and _whole(record):
                # A test that all slices have run without is there no more.
                covered[key].add(record.slice)
            if was.passes >= was.wanted or len(covered[key]) >= record.slices:
                del found[key]
    return sorted(found.values(), key=lambda failure: failure.when)


@dataclass
class PartState:
    """`whole`: the record that completed it on one commit most recently.  `last`: the latest record
    of each slice, on any commit.  `runs`: on the commit that was asked for, per slice."""

    name: str
    slices: int
    whole: object = None
    last: dict = field(default_factory=dict)
    runs: Counter = field(default_factory=Counter)
    records: int = 0
    events: Counter = field(default_factory=Counter)

    @property
    def never(self):
        return [number for number in range(1, self.slices + 1) if number not in self.last]

    @property
    def oldest(self):
        """The slice that has waited longest, as its latest record; None if one never ran."""
        return None if self.never else min(self.last.values(), key=lambda record: record.when)

    def todo(self):
        """The slices (from 0) that are missing of the current round on the commit."""
        fewest = min(self.runs[number] for number in range(1, self.slices + 1))
        return [number - 1 for number in range(1, self.slices + 1) if self.runs[number] == fewest]

    @property
    def begun(self):
        """Whether a round has begun on the commit and is not complete."""
        return len(self.todo()) < self.slices


def states(records, parts, commit):
    """The state of each part, in the order of `parts`."""
    found = {part.name: PartState(part.name, part.slices) for part in parts}
    done = {}
    for record in sorted(records, key=lambda record: record.when):
        state = found.get(record.part)
        if state is None:
            continue
        state.records += 1
        state.events.update(record.events)
        # A part that is divided in another way now begins anew.
        if not _whole(record) or record.slices != state.slices:
            continue
        state.last[record.slice] = record
        ran = done.setdefault((record.part, record.commit), set())
        ran.add(record.slice)
        if len(ran) == state.slices:
            state.whole = record
            ran.clear()
        if record.commit == commit:
            state.runs[record.slice] += 1
    return list(found.values())


def order(states_of_parts):
    """Parts for the next round: what has not run whole for longest comes first, and of those what
    is nearest to being whole."""
    return sorted(states_of_parts, key=lambda s: (s.whole.when if s.whole else 0.0, not s.begun))


def ago(seconds):
    """ "5 min", "3 h" or "2 d"."""
    if seconds < 3600:
        return f"{int(seconds / 60)} min"
    return f"{int(seconds / 3600)} h" if seconds < 48 * 3600 else f"{int(seconds / 86400)} d"


def _short(count):
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**4)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if unit != "k" else f"{count / 1000:.0f} k"
    return str(count)


def _slices(numbers):
    """ "1-3 5"."""
    runs = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def rows(states_of_parts, failures, now):
    """The table: a list of rows of words, the first its head."""
    table = [("part", "last whole", "on", "not run since", "records", "open failures", "events, all runs")]
    for state in states_of_parts:
        whole, oldest = state.whole, state.oldest
        if state.never:
            since = "never" if state.slices == 1 else f"never: {_slices(state.never)} of {state.slices}"
        else:
            where = f"slice {oldest.slice}: " if state.slices > 1 else ""
            since = f"{where}{ago(now - oldest.when)}, {oldest.commit}"
        bad = [failure for failure in failures if failure.part == state.name]
        events = ", ".join(f"{name} {_short(count)}" for name, count in sorted(state.events.items()))
        table.append((
            state.name,
            f"{ago(now - whole.when)} ago" if whole else "never",
            whole.commit + ("+" if whole.dirty else "") if whole else "-",
            since,
            str(state.records),
            str(len(bad)) if bad else "-",
            events or "-",
        ))  # fmt: skip
    return table


def aligned(table):
    """The rows as lines with columns of one width."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in table]


def described(failure, now):
    """One line for an open failure."""
    return (
        f"{failure.status}: {failure.test} in {failure.part}, {ago(now - failure.when)} ago on {failure.commit}; "
        f"passed {failure.passes} of {failure.wanted} times on later commits"
    )
