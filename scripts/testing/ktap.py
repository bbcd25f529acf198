# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reads KTAP, as the guests and the scripts print it."""

import re
from collections import Counter
from dataclasses import dataclass, field

from .outcome import FAILED, KNOWN, PASSED, SKIPPED, Outcome, Result

RESULT = re.compile(r"^(not )?ok (\d+)(?: (?:- )?(.*))?$")
PLAN = re.compile(r"^1\.\.(\d+)")
EVENTS = re.compile(r"^[# ]*events: ((?:\w+=\d+ ?)+)$")
SURPRISES = "# known as defects of the C module, and passed: "
# Lines of a test's own output that are kept with a failure.
DETAIL_LINES = 60
# The exit status of a script that could not run here.
EXIT_SKIP = 4


@dataclass
class Parsed:
    """`planned` is None without a plan line."""

    planned: int | None = None
    results: list[Result] = field(default_factory=list)
    events: Counter = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)


def events_of(line):
    """The counts of a line "events: kills=50 bytes=7", or None."""
    found = EVENTS.match(line)
    return Counter({k: int(v) for k, v in (pair.split("=") for pair in found[1].split())}) if found else None


def why(detail):
    """The one line of a test's output that says most.

    That is its first error, or else its last word that is not a time or a log line.
    """
    texts = [line.lstrip("# ").strip() for line in detail]
    for text in texts:
        if text.startswith("error: "):
            return text.removeprefix("error: ")[:300]
    for text in reversed(texts):
        if text and not re.fullmatch(r"[\d.]+ s", text) and not text.startswith("kernel: "):
            return text[:300]
    return ""


def parse(lines):
    """Reads all lines.  What stands before a result belongs to it; so do comments after a bad one."""
    parsed, before, after = Parsed(), [], None
    for line in lines:
        line = line.rstrip("\r\n")
        if (counted := events_of(line)) is not None:
            parsed.events.update(counted)
            continue
        if line.startswith(SURPRISES):
            parsed.surprises += line[len(SURPRISES) :].split()
            continue
        if (found := RESULT.match(line)) is None:
            if parsed.planned is None and (plan := PLAN.match(line)):
                parsed.planned = int(plan[1])
            elif after is not None and line.startswith("#"):
                after.append(line)
            else:
                before.append(line)
            continue
        _close(parsed, after)
        after = None
        bad, number, text = found[1], found[2], found[3] or ""
        name, _, directive = text.partition(" # ")
        name = name.strip() or f"test {number}"
        parsed.events["points"] += 1
        if bad:
            after = before[-DETAIL_LINES:]
            parsed.results.append(Result(name, FAILED))
        elif directive.startswith("SKIP") or text.startswith("# SKIP"):
            parsed.results.append(Result(name, SKIPPED, directive.removeprefix("SKIP").strip()))
        else:
            status = KNOWN if directive.startswith("known C defect") else PASSED
            parsed.results.append(Result(name, status))
        before = []
    _close(parsed, after)
    return parsed


def _close(parsed, detail):
    """Gives the last result, which was bad, what was said around it."""
    if detail is not None:
        last = parsed.results[-1]
        parsed.results[-1] = Result(last.name, last.status, why(detail), tuple(detail[: 2 * DETAIL_LINES]))


def outcome_of_script(name, lines, status, log=""):
    """The outcome of a script that printed `lines` and ended with `status`.

    A script that has fewer results than it had planned, or fails and no result says why, is
    one failure more, under its own name.
    """
    lines = list(lines)
    parsed = parse(lines)
    outcome = Outcome(parsed.results, parsed.events, parsed.surprises, log=log)
    planned = 1 if parsed.planned is None else parsed.planned
    reason = ""
    if status == EXIT_SKIP:
        skip = next((line for line in lines if "# SKIP" in line), "")
        outcome.results.append(Result(name, SKIPPED, skip.partition("# SKIP")[2].strip()))
    elif len(parsed.results) < planned:
        reason = f"status {status} after {len(parsed.results)} of {planned} results"
    elif status != 0 and not outcome.failed:
        reason = f"status {status}, and no result says why"
    if reason:
        outcome.results.append(Result(name, FAILED, reason, tuple(lines[-DETAIL_LINES:])))
    return outcome
