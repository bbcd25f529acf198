# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tries a failure once more: a test that passes then is unstable, which is reported by name."""

from .commands import Selftests
from .outcome import FAILED, PASSED, UNSTABLE, Outcome, Result

# More failures than this at a time have one cause, which is there the next time too.
MOST = 5


def merge(first, again):
    """`first`, with what passed in `again` marked as unstable.

    A failure that has no result in `again` stays one.
    """
    second = {result.name: result.status for result in again.results}
    merged = Outcome([], first.events + again.events, first.surprises, first.seconds, first.log)
    for result in first.results:
        if result.status == FAILED and second.get(result.name, FAILED) == PASSED:
            result = Result(result.name, UNSTABLE, result.reason, result.detail)
        merged.results.append(result)
    known = {result.name for result in first.results}
    # What has failed in the second run alone is unstable as well.
    for result in again.results:
        if result.status == FAILED and result.name not in known:
            merged.results.append(Result(result.name, UNSTABLE, result.reason, result.detail))
    return merged


def _again(c, part, index, tag, failed):
    """Runs what has failed: selftests each in a guest of its own, all else as its whole slice."""
    if isinstance(part.run, Selftests):
        known = set(part.run.names(c))
        if known.issuperset(failed):
            total = Outcome()
            for number, name in enumerate(failed, 1):
                total.add(part.run.named(c, f"{tag}-again-{number}", [name]))
            return total
    return part.run(c, index, f"{tag}-again")


def run_part(c, part, index, tag, repeat=True):
    """One slice, with its files named after `tag`; its failures are tried again if the part allows it
    and they are few."""
    first = part.run(c, index, tag)
    failed = first.named(FAILED)
    if not failed or not repeat or not part.repeat or len(failed) > MOST:
        return first
    again = _again(c, part, index, tag, failed)
    return merge(first, again)
