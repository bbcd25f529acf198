# SPDX-License-Identifier: MIT OR Apache-2.0
"""How slow this machine is now, for deadlines that follow it.

The speed is measured by a piece of work of fixed size.  The factor is at least 1: a machine
faster than the reference does not shorten a deadline, which may wait for time itself.
"""

import time

# Seconds that `_work` takes on the reference, a processor of a server of 2024 that does nothing
# else: the median of 20 runs, by processor time.
REFERENCE = 0.04
# No deadline becomes longer than by this factor, so that each wait still ends.
LARGEST = 10.0


def _work():
    value = 1
    for _ in range(600_000):
        value = (value * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
    return value


def slowness(work=_work, clock=time.perf_counter):
    """The factor for deadlines, 1 to LARGEST."""
    begun = clock()
    work()
    return min(max((clock() - begun) / REFERENCE, 1.0), LARGEST)


class Deadline:
    """`seconds` on the reference machine; longer if the machine is slower, then or at its end."""

    def __init__(self, seconds, factor=None, measure=slowness, clock=time.monotonic):
        self._seconds, self._measure, self._clock = seconds, measure, clock
        self._begun = clock()
        self.factor = measure() if factor is None else factor

    def remaining(self):
        """Seconds left; 0 once it has passed, which is only said after measuring again."""
        elapsed = self._clock() - self._begun
        if elapsed >= self._seconds * self.factor:
            self.factor = max(self.factor, self._measure())
        return max(self._seconds * self.factor - elapsed, 0.0)

    def __str__(self):
        return f"{self._seconds:.0f} s x {self.factor:.1f}"
