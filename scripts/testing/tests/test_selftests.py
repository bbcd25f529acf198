# SPDX-License-Identifier: MIT OR Apache-2.0
"""Guests that end early."""

import unittest

from testing.outcome import FAILED, PASSED, Outcome, Result
from testing.selftests import LEAK_RESULTS, MOST_GUESTS, Guests, select

TIMED_OUT, CRASHED = 124, 126


class Scripted(Guests):
    """`script`: for each guest its status and the names that it has results of."""

    def __init__(self, script, leak_check=False):
        self.script, self.leak_check, self.asked = list(script), leak_check, []

    def guest(self, tag, names):
        self.asked.append((tag, list(names)))
        status, done = self.script.pop(0)
        return status, Outcome([Result(name, PASSED) for name in done])


class EarlyEnds(unittest.TestCase):
    def run_guests(self, names, script, leak_check=False):
        guests = Scripted(script, leak_check)
        return guests.run("tag", names), guests.asked

    def test_one_guest_is_enough_if_it_does_all(self):
        outcome, asked = self.run_guests("ab", [(0, "ab")])
        self.assertEqual((outcome.status, len(asked)), (PASSED, 1))

    def test_the_test_that_a_crash_has_met_fails_and_the_others_go_on(self):
        outcome, asked = self.run_guests("abcd", [(CRASHED, "a"), (0, "cd")])
        self.assertEqual(outcome.named(FAILED), ["b"])
        self.assertEqual(asked[1], ("tag-2", ["c", "d"]))
        self.assertIn("126", outcome.results[1].reason)

    def test_out_of_time_with_progress_is_no_failure(self):
        outcome, asked = self.run_guests("abc", [(TIMED_OUT, "a"), (0, "bc")])
        self.assertEqual((outcome.status, len(asked)), (PASSED, 2))

    def test_guests_that_always_end_early_are_given_up(self):
        names = [f"t{n}" for n in range(20)]
        outcome, asked = self.run_guests(names, [(CRASHED, "")] * MOST_GUESTS)
        self.assertEqual((len(asked), sorted(outcome.named(FAILED))), (MOST_GUESTS, sorted(names)))

    def test_a_crash_after_the_last_result_is_a_failure(self):
        outcome, _ = self.run_guests("a", [(CRASHED, "a")])
        self.assertEqual(outcome.named(FAILED), ["guest_end"])

    def test_leaks_must_have_been_looked_for(self):
        outcome, _ = self.run_guests(["a"], [(0, ["a"])], leak_check=True)
        self.assertEqual(outcome.named(FAILED), ["leak_check"])
        outcome, _ = self.run_guests(["a"], [(0, ["a", *LEAK_RESULTS])], leak_check=True)
        self.assertEqual(outcome.status, PASSED)


class Selection(unittest.TestCase):
    def test_a_word_stands_for_all_that_begin_so(self):
        names = ["d01_x", "d05_y", "read_lz4", "stop_d05"]
        self.assertEqual(select(names, ["d0"]), ["d01_x", "d05_y"])
        self.assertEqual(select(names, ["*d05", "read_lz4"]), ["d05_y", "read_lz4", "stop_d05"])
        self.assertEqual(select(names, ["nothing"]), [])
