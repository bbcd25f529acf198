# SPDX-License-Identifier: MIT OR Apache-2.0
"""The last lines of a run: what failed, why, and the command that repeats it; then the sum.

They are at most LINES, for of a long output often the end alone is kept.
"""

from .outcome import FAILED, KNOWN, PASSED, SKIPPED, UNSTABLE

LINES = 20
WIDTH = 300


def repeat_command(part, tag, seed, selftest=None):
    """What runs a failure again: a selftest alone, all else as its slice, with the same seed."""
    return f"scripts/test --seed {seed} {f'{part}:{selftest}' if selftest else tag}"


def _failure_lines(entries, room):
    """Two lines an entry, as many as there is room for; then how many are left out.

    `entries`: (kind, name, reason, command).
    """
    lines = []
    for number, (kind, name, reason, command) in enumerate(entries):
        rest = len(entries) - number
        if len(lines) + 2 > room - (1 if rest > 1 else 0):
            names = " ".join(entry[1] for entry in entries[number:])
            lines.append(f"and {rest} more: {names}"[:WIDTH])
            break
        lines.append(f"{kind}: {name}: {reason or 'see its log'}"[:WIDTH])
        lines.append(f"    again: {command}"[:WIDTH])
    return lines


def closing(outcomes, entries, took, logs, unfinished=()):
    """The lines, without an end of line.

    `outcomes`: all; `entries`: (kind, name, reason, command) of what failed or was unstable;
    `unfinished`: names of what was still to run when the run was given up.
    """
    count = {kind: sum(outcome.count(kind) for outcome in outcomes) for kind in (PASSED, FAILED, UNSTABLE, SKIPPED, KNOWN)}
    surprises = [name for outcome in outcomes for name in outcome.surprises]
    # An unstable test has passed.
    not_run = f", {len(unfinished)} parts not run" if unfinished else ""
    last = [f"{count[PASSED] + count[UNSTABLE]} passed, {count[FAILED]} failed, {count[SKIPPED]} skipped{not_run}"]
    extra = [f"took {took}; logs in {logs}"]
    if count[KNOWN]:
        extra.append(f"known defects of the C module: {count[KNOWN]}")
    if surprises:
        extra.append(f"passed, though known as defects of the C module: {' '.join(surprises)}"[:WIDTH])
    if count[UNSTABLE]:
        names = [e[1] for e in entries if e[0] == UNSTABLE]
        extra.append(f"unstable, passed when repeated alone: {' '.join(names)}"[:WIDTH])
    if unfinished:
        extra.append(f"not run: {' '.join(unfinished)}"[:WIDTH])
    ordered = sorted(entries, key=lambda entry: entry[0] != FAILED)
    return [*_failure_lines(ordered, LINES - len(extra) - len(last)), *extra, *last]
