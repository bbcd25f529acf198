# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a command line and a commit stand for, and the closing lines."""

import unittest
from types import SimpleNamespace

from testing import closing, plan
from testing.outcome import FAILED, KNOWN, PASSED, SKIPPED, UNSTABLE, Outcome, Result
from testing.parts import PARTS, SLICED, SOAK, TEST


def tags(entries):
    return [entry.tag for entry in entries]


class Words(unittest.TestCase):
    def test_a_part_a_slice_and_selftests(self):
        self.assertEqual(tags(plan.of_words(["exchange/2", "boot"])), ["exchange/2", "boot"])
        self.assertEqual(tags(plan.of_words(["power-cut"])), ["power-cut/1", "power-cut/2"])
        self.assertEqual(tags(plan.of_words(["d05", "read_"])), ["selftests:d05,read_"])
        self.assertEqual(tags(plan.of_words(["d05"], "selftests-debug")), ["selftests-debug:d05"])
        self.assertEqual(tags(plan.of_words(["selftests-debug:d05,d06"])), ["selftests-debug:d05,d06"])
        self.assertEqual(tags(plan.of_words(["smack_", "d05"])), ["selftests:d05", "selftests-smack:smack_"])
        self.assertEqual(tags(plan.of_words(["boot", "boot"])), ["boot"])

    def test_what_stands_for_nothing_says_so(self):
        for word in ["nothing/1", "nothing:x", "exchange/0", "exchange/5", "exchange/x", "boot:x", "selftests:"]:
            with self.assertRaises(plan.Unknown, msg=word):
                plan.of_words([word])


class Commits(unittest.TestCase):
    def test_each_runs_all_of_make_test(self):
        for number in (0, 1, 277):
            entries = plan.of_commit(number)
            for part in PARTS:
                mine = [entry.index for entry in entries if entry.part is part]
                if part.tier == TEST:
                    self.assertEqual(mine, list(range(part.slices)))
                else:
                    self.assertEqual(len(mine), 1 if part.tier == SLICED else 0)

    def test_after_as_many_commits_as_the_largest_has_slices_all_was_run(self):
        most = max(part.slices for part in PARTS if part.tier == SLICED)
        ran = {entry for number in range(277, 277 + most) for entry in plan.of_commit(number)}
        for entry in plan.whole(part for part in PARTS if part.tier != SOAK):
            self.assertIn(entry, ran)


class Processors(unittest.TestCase):
    def test_each_slice_has_guests_with_one_and_with_two_by_turns(self):
        seen = {}
        for number in range(300, 300 + plan.SMP_TURN * 13):
            for entry in plan.of_commit(number):
                seen.setdefault(entry, set()).add(plan.processors(entry, number, "ci"))
        for entry, numbers in seen.items():
            self.assertEqual(numbers, {2} if entry.part.smp else {1, 2}, entry.tag)

    def test_few_have_two_in_one_commit_and_all_have_in_soak(self):
        for number in range(300, 320):
            entries = [entry for entry in plan.of_commit(number) if entry.part.lane == "guest" and not entry.part.smp]
            two = [entry for entry in entries if plan.processors(entry, number, "ci") == 2]
            self.assertLess(len(two), len(entries) / 3)
        self.assertEqual({plan.processors(entry, 1, "soak") for entry in plan.whole(PARTS)}, {2})


class Missing(unittest.TestCase):
    """A run that was cut off goes on."""

    commit = SimpleNamespace(name="new", dirty=False)

    def left(self, *records):
        fields = ("slice", "status", "commit", "dirty", "selected", "slices")
        usual = {"part": "fuzz", "status": PASSED, "commit": "new", "dirty": False, "selected": False, "slices": 4}
        known = [SimpleNamespace(**{**usual, **dict(zip(fields, record))}) for record in records]
        return tags(plan.missing(plan.of_words(["fuzz"]), known, self.commit))

    def test_what_has_passed_on_this_commit_is_not_run_again(self):
        self.assertEqual(self.left((1,), (3, UNSTABLE)), ["fuzz/2", "fuzz/4"])

    def test_what_has_failed_or_ran_on_something_else_is(self):
        all_but_one = [(2,), (3,), (4,)]
        for record in [(1, FAILED), (1, SKIPPED), (1, PASSED, "old"), (1, PASSED, "new", True),
                       (1, PASSED, "new", False, True), (1, PASSED, "new", False, False, 5)]:  # fmt: skip
            self.assertEqual(self.left(record, *all_but_one), ["fuzz/1"], record)

    def test_after_a_whole_run_all_begins_anew(self):
        self.assertEqual(len(self.left((1,), (2,), (3,), (4,))), 4)
        self.assertEqual(len(self.left()), 4)


class Closing(unittest.TestCase):
    def lines(self, failures, statuses=(PASSED,), unfinished=()):
        outcomes = [Outcome([Result("x", status) for status in statuses])]
        return closing.closing(outcomes, failures, "9m00s", "/logs", unfinished)

    def test_a_failure_has_its_reason_and_what_repeats_it(self):
        again = closing.repeat_command("selftests-debug", "selftests-debug/3", 277, "d05_x")
        lines = self.lines([(FAILED, "d05_x", "wrong byte", again)], (PASSED, FAILED))
        self.assertEqual(lines[0], "failed: d05_x: wrong byte")
        self.assertEqual(lines[1], "    again: scripts/test --seed 277 selftests-debug:d05_x")
        self.assertEqual(lines[-1], "1 passed, 1 failed, 0 skipped")
        self.assertEqual(closing.repeat_command("boot", "boot", 1), "scripts/test --seed 1 boot")

    def test_many_failures_fit_and_all_are_named(self):
        entries = [(FAILED, f"t{n}", "why", "again") for n in range(30)]
        lines = self.lines(entries, [FAILED] * 30 + [UNSTABLE, KNOWN], ("a", "b"))
        self.assertLessEqual(len(lines), closing.LINES)
        self.assertTrue(any(line.startswith("and ") and "t29" in line for line in lines))
        self.assertEqual(lines[-1], "1 passed, 30 failed, 0 skipped, 2 parts not run")

    def test_failures_come_before_what_is_unstable(self):
        entries = [(UNSTABLE, "shy", "late", "x"), (FAILED, "bad", "why", "y")]
        lines = self.lines(entries, (FAILED, UNSTABLE))
        self.assertTrue(lines[0].startswith("failed: bad"))
        self.assertIn("unstable, passed when repeated alone: shy", lines)

    def test_what_fits_exactly_is_not_cut(self):
        entries = [(FAILED, f"t{n}", "why", "again") for n in range(9)]
        lines = self.lines(entries, [FAILED] * 9)
        self.assertEqual(len(lines), closing.LINES)
        self.assertFalse(any(line.startswith("and ") for line in lines))

    def test_all_good_is_two_lines(self):
        self.assertEqual(self.lines([], (PASSED, SKIPPED)), ["took 9m00s; logs in /logs", "1 passed, 0 failed, 1 skipped"])
