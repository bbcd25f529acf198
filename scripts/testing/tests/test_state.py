# SPDX-License-Identifier: MIT OR Apache-2.0
"""The results file, and what it says of each part."""

import json
import tempfile
import unittest
from pathlib import Path

from testing import soak, state
from testing.outcome import FAILED, KNOWN, PASSED, SKIPPED, UNSTABLE, Outcome, Result
from testing.parts import BY_NAME, PARTS
from testing.records import Record, Records, expected_seconds


class Part:
    def __init__(self, name, slices, seconds=10):
        self.name, self.slices, self.seconds = name, slices, seconds

    run = None


def record(when, part="p", number=1, slices=1, commit="c1", **more):
    values = {"by": "ci", "number": 1, "dirty": False, "seed": 7, "status": PASSED, "seconds": 5.0, **more}
    return Record(when=when, part=part, slice=number, slices=slices, commit=commit, **values)


class File(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "below/results.jsonl")
        self.records = Records(self.path)

    def test_what_is_written_is_read(self):
        first = record(1, failed_tests=("a", "b"), events={"kills": 50})
        self.records.append(first)
        self.records.append(record(2))
        self.assertEqual(self.records.read(), [first, record(2)])

    def test_a_line_that_was_cut_off_spoils_no_other(self):
        self.records.append(record(1))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write('{"when": 2, "par')
        self.records.append(record(3))
        self.assertEqual(self.records.read(), [record(1), record(3)])
        self.assertEqual(self.records.unreadable, 1)

    def test_a_field_of_a_later_version_makes_a_line_unreadable_not_a_crash(self):
        self.records.append(record(1))
        values = json.loads(self.path.read_text())
        self.path.write_text(json.dumps({**values, "new": 1}) + "\n[1]\n")
        self.assertEqual((self.records.read(), self.records.unreadable), ([], 2))

    def test_without_a_file_there_is_nothing(self):
        self.assertEqual(self.records.read(), [])

    def test_the_time_that_a_slice_takes_is_that_of_its_last_runs(self):
        part = Part("p", 2)
        self.assertEqual(expected_seconds([], part, 0), 10)
        records = [record(n, slices=2, seconds=float(n)) for n in range(1, 8)]
        self.assertEqual(expected_seconds(records, part, 0), 5.0)
        self.assertEqual(expected_seconds(records, part, 1), 5.0)


class Failures(unittest.TestCase):
    def test_what_fails_is_open_until_it_passes_on_another_commit(self):
        bad = record(1, status=FAILED, failed_tests=("t",))
        self.assertEqual([f.test for f in state.open_failures([bad])], ["t"])
        same = record(2, passed_tests=("t",))
        self.assertEqual(len(state.open_failures([bad, same])), 1)
        self.assertEqual(state.open_failures([bad, record(3, commit="c2", passed_tests=("t",))]), [])

    def test_what_is_unstable_is_open_until_it_has_passed_often(self):
        records = [record(0, status=UNSTABLE, unstable_tests=("t",))]
        for n in range(1, state.MEND_RUNS):
            records.append(record(n, commit="c2", passed_tests=("t",)))
            (failure,) = state.open_failures(records)
            self.assertEqual(failure.passes, n)
        again = [*records, record(50, commit="c2", status=UNSTABLE, unstable_tests=("t",))]
        self.assertEqual(state.open_failures(again)[0].passes, 0)
        records.append(record(60, commit="c3", passed_tests=("t",)))
        self.assertEqual(state.open_failures(records), [])

    def test_once_unstable_a_plain_failure_does_not_make_it_less(self):
        records = [record(0, unstable_tests=("t",)), record(1, failed_tests=("t",))]
        self.assertEqual(state.open_failures(records)[0].status, UNSTABLE)

    def test_a_test_that_is_there_no_more_is_not_open(self):
        bad = record(0, slices=2, failed_tests=("t",))
        first = record(1, number=1, slices=2, commit="c2")
        self.assertEqual(len(state.open_failures([bad, first])), 1)
        self.assertEqual(state.open_failures([bad, first, record(2, number=2, slices=2, commit="c2")]), [])
        # What was chosen by name says nothing of the others.
        chosen = [record(n, number=n, slices=2, commit="c2", selected=True) for n in (1, 2)]
        self.assertEqual(len(state.open_failures([bad, *chosen])), 1)

    def test_they_are_what_soak_begins_with(self):
        class Fake(Part):
            pass

        parts = {"p": Fake("p", 2)}
        failure = state.Open("p", "t", 2, UNSTABLE, "c1", 1.0, passes=4)
        ((entry, times),) = soak.failures_to_repeat([failure], parts)
        self.assertEqual((entry.part.name, entry.index, times), ("p", 1, 1))
        self.assertEqual(soak.failures_to_repeat([state.Open("gone", "t", 1, FAILED, "c1", 1.0)], parts), [])
        for status, wanted in ((FAILED, 1), (UNSTABLE, state.MEND_RUNS - 4)):
            failure = state.Open("selftests", "d05_x", 1, status, "c1", 1.0, passes=0 if status == FAILED else 4)
            ((entry, times),) = soak.failures_to_repeat([failure])
            self.assertEqual((entry.words, times), (("d05_x",), wanted))


class Rounds(unittest.TestCase):
    PARTS = [Part("a", 2), Part("b", 1), Part("c", 1)]

    def tags(self, records, commit="c1"):
        return [f"{e.part.name}{e.index + 1}" for e in soak.next_entries(records, commit, self.PARTS)]

    def test_what_has_not_run_whole_for_longest_comes_first(self):
        self.assertEqual(self.tags([]), ["a1", "a2", "b1", "c1"])
        records = [record(1, "b"), record(2, "c"), record(3, "a", 1, 2)]
        self.assertEqual(self.tags(records), ["a2", "b1", "c1"])
        records.append(record(4, "a", 2, 2))
        self.assertEqual(self.tags(records), ["b1", "c1", "a1", "a2"])

    def test_another_commit_begins_anew(self):
        records = [record(1, "a", 1, 2), record(2, "b")]
        self.assertEqual(self.tags(records, "c2"), ["a1", "a2", "c1", "b1"])

    def test_what_is_whole_on_one_commit_is_whole(self):
        records = [record(1, "a", 1, 2), record(2, "a", 2, 2, commit="c2")]
        of_a = state.states(records, self.PARTS, "c1")[0]
        self.assertIsNone(of_a.whole)
        self.assertEqual((of_a.never, of_a.oldest.slice), ([], 1))
        records.append(record(3, "a", 1, 2, commit="c2"))
        self.assertEqual(state.states(records, self.PARTS, "c1")[0].whole.commit, "c2")

    def test_skipped_and_selected_runs_and_other_slices_do_not_count(self):
        records = [record(1, "b", status=SKIPPED), record(2, "b", selected=True), record(3, "a", 3, 4)]
        states = state.states(records, self.PARTS, "c1")
        self.assertEqual([s.never for s in states], [[1, 2], [1], [1]])

    def test_the_table_says_all(self):
        records = [record(0, "a", 1, 2, events={"kills": 1_500_000}), record(60, "b", failed_tests=("t",), status=FAILED)]
        failures = state.open_failures(records)
        lines = state.aligned(state.rows(state.states(records, self.PARTS, "c1"), failures, 7200.0))
        self.assertIn("never: 2 of 2", lines[1])
        self.assertIn("kills 1.5 M", lines[1])
        self.assertRegex(lines[2], r"^b +1 h ago +c1 +1 h, c1 +1 +1")
        self.assertIn("failed: t in b", state.described(failures[0], 7200.0))

    def test_numbers_and_ages_are_short(self):
        self.assertEqual(state._slices([1, 2, 3, 5, 9, 10]), "1-3 5 9-10")
        self.assertEqual([state.ago(90), state.ago(7200), state.ago(3 * 86400)], ["1 min", "2 h", "3 d"])


class Outcomes(unittest.TestCase):
    def test_the_status_is_the_worst(self):
        kinds = [SKIPPED, KNOWN, PASSED, UNSTABLE, FAILED]
        wanted = [SKIPPED, PASSED, PASSED, UNSTABLE, FAILED]
        for n in range(len(kinds)):
            results = [Result(kind, kind) for kind in kinds[: n + 1]]
            self.assertEqual(Outcome(results).status, wanted[n])
        self.assertEqual(Outcome().status, SKIPPED)

    def test_parts_have_names_of_their_own(self):
        self.assertEqual(len(BY_NAME), len(PARTS))


if __name__ == "__main__":
    unittest.main()
