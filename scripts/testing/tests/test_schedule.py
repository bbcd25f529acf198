# SPDX-License-Identifier: MIT OR Apache-2.0
"""Running side by side, and trying again."""

import threading
import unittest

from testing import repeat
from testing.outcome import FAILED, PASSED, SKIPPED, UNSTABLE, Outcome, Result, one
from testing.process import Cancelled
from testing.progress import Progress, clock, share_done
from testing.schedule import Scheduler, Task

LANES = {"a": 1, "b": 2}
WAIT = 30


class Told:
    def __init__(self):
        self.order = []

    def ended(self, task, _outcome, _running):
        self.order.append(task.name)

    def alive(self, _running):
        pass


def task(name, lane="a", run=None, needs=(), seconds=1.0):
    return Task(name, name, lane, seconds, run or (lambda: one(name, False)), tuple(needs))


def run(tasks, **options):
    told = Told()
    return Scheduler(tasks, told, lanes=LANES, heartbeat=0.05, **options).run(), told.order


class Scheduling(unittest.TestCase):
    def test_what_is_needed_comes_first_and_the_longest_before_the_shorter(self):
        tasks = [task("short"), task("long", seconds=9), task("last", needs=("short", "long"), seconds=99)]
        self.assertEqual(run(tasks)[1], ["long", "short", "last"])

    def test_what_much_hangs_on_comes_before_what_is_long_itself(self):
        tasks = [task("long", seconds=9), task("build", seconds=2), task("guest", "b", needs=("build",), seconds=8)]
        self.assertEqual(run(tasks)[1][0], "build")

    def test_in_order_the_first_that_can_comes_first(self):
        self.assertEqual(run([task("short"), task("long", seconds=9)], ordered=True)[1], ["short", "long"])

    def test_what_needs_a_failure_is_skipped(self):
        tasks = [task("build", run=lambda: one("build", True)), task("test", needs=("build",)), task("odd", needs=("nobody",))]
        outcomes, _ = run(tasks)
        self.assertEqual([outcomes[n].status for n in ("build", "test", "odd")], [FAILED, SKIPPED, SKIPPED])

    def test_what_was_given_counts_as_done(self):
        outcomes, order = run([task("test", needs=("build",))], given={"build": one("build", False)})
        self.assertEqual((outcomes["test"].status, order), (PASSED, ["test"]))

    def test_a_lane_runs_as_many_as_it_has_places(self):
        both = threading.Barrier(2)

        def meet():
            both.wait(WAIT)
            return one("x", False)

        # Would never end if one had to wait for the other.
        run([task("one", "b", meet), task("two", "b", meet)])
        running, most = [0], [0]

        def alone():
            running[0] += 1
            most[0] = max(most[0], running[0])
            running[0] -= 1
            return one("x", False)

        run([task(str(n), "a", alone) for n in range(20)])
        self.assertEqual(most, [1])

    def test_a_fault_of_the_runner_is_a_failure_of_its_task(self):
        outcomes, _ = run([task("odd", run=lambda: 1 / 0), task("good")])
        self.assertEqual((outcomes["odd"].status, outcomes["good"].status), (FAILED, PASSED))
        self.assertIn("ZeroDivisionError", outcomes["odd"].results[0].reason)

    def test_giving_up_ends_it(self):
        def cancelled():
            raise Cancelled

        with self.assertRaises(Cancelled):
            run([task("one", run=cancelled), task("two")])


def outcome(**statuses):
    return Outcome([Result(name, status, f"why {name}") for name, status in statuses.items()])


class Repeating(unittest.TestCase):
    def test_what_passes_then_is_unstable_and_keeps_its_reason(self):
        merged = repeat.merge(outcome(a=PASSED, b=FAILED, c=FAILED), outcome(b=PASSED, c=FAILED))
        self.assertEqual([(r.name, r.status) for r in merged.results], [("a", PASSED), ("b", UNSTABLE), ("c", FAILED)])
        self.assertEqual(merged.results[1].reason, "why b")
        self.assertEqual(merged.status, FAILED)

    def test_without_a_second_result_it_stays_a_failure(self):
        self.assertEqual(repeat.merge(outcome(a=FAILED), outcome()).named(FAILED), ["a"])
        self.assertEqual(repeat.merge(outcome(a=FAILED), outcome(a=SKIPPED)).named(FAILED), ["a"])

    def test_what_fails_the_second_time_alone_is_unstable(self):
        merged = repeat.merge(outcome(a=FAILED), outcome(a=PASSED, b=FAILED))
        self.assertEqual(merged.named(UNSTABLE), ["a", "b"])

    def test_a_slice_is_run_again_only_if_it_failed_and_little_of_it(self):
        class Part:
            repeat = True

            def __init__(self, *outcomes):
                self.outcomes = list(outcomes)

            def tag(self, _index):
                return "part/1"

            def run(self, _c, _index, _tag):
                return self.outcomes.pop(0)

        many = outcome(**{f"t{n}": FAILED for n in range(repeat.MOST + 1)})
        for first, left in [(outcome(a=PASSED), 1), (outcome(a=FAILED), 0), (many, 1)]:
            part = Part(first, outcome(a=PASSED))
            repeat.run_part(None, part, 0, "part-1")
            self.assertEqual(len(part.outcomes), left)
        part = Part(outcome(a=FAILED), outcome(a=PASSED))
        part.repeat = False
        self.assertEqual(repeat.run_part(None, part, 0, "part-1").status, FAILED)


class Share(unittest.TestCase):
    def test_it_grows_to_100_and_never_says_so_early(self):
        self.assertEqual(share_done(0, [], 100), 0)
        self.assertEqual(share_done(50, [(20, 10)], 100), 60)
        self.assertEqual(share_done(90, [(10, 1000)], 100), 99)
        self.assertEqual(share_done(0, [], 0), 0)
        lines = []
        progress = Progress([task("a", seconds=3), task("b")], write=lines.append, now=lambda: 0.0)
        progress.ended(task("a", seconds=3), one("a", True, "odd"))
        progress.ended(task("b"), one("b", False))
        self.assertEqual(progress.share(), 100)
        self.assertTrue(lines[0].startswith("[ 75 %"))
        self.assertIn("failed: a: odd", lines[1])
        self.assertTrue(lines[-1].startswith("[100 %"))

    def test_times_are_short(self):
        self.assertEqual([clock(5.9), clock(60), clock(3725)], ["5s", "1m00s", "62m05s"])
