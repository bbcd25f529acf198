# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reading results."""

import tempfile
import unittest
from pathlib import Path

from testing import junit, ktap
from testing.outcome import FAILED, KNOWN, PASSED, SKIPPED, UNSTABLE

GUEST = """KTAP version 1
1..5
ok 1 - plain
# READ of 4096 not answered
# kernel: something
# 1.5 s
not ok 2 - d05_close
# more of it
ok 3 - module_second_backend # SKIP no other module
ok 4 - d01_lz4 # known C defect D1
# known as defects of the C module, and passed: d02_x d03_y
# events: kills=50 bytes=7
ok 5 storm_kills
""".splitlines()


class Ktap(unittest.TestCase):
    def test_each_kind_of_result_is_read(self):
        parsed = ktap.parse(GUEST)
        self.assertEqual(parsed.planned, 5)
        self.assertEqual(
            [(r.name, r.status) for r in parsed.results],
            [("plain", PASSED), ("d05_close", FAILED), ("module_second_backend", SKIPPED), ("d01_lz4", KNOWN), ("storm_kills", PASSED)],
        )
        self.assertEqual(parsed.surprises, ["d02_x", "d03_y"])
        self.assertEqual(parsed.events, {"kills": 50, "bytes": 7, "points": 5})

    def test_a_failure_has_what_was_said_around_it(self):
        bad = ktap.parse(GUEST).results[1]
        self.assertIn("# READ of 4096 not answered", bad.detail)
        self.assertIn("# more of it", bad.detail)
        self.assertEqual(bad.reason, "more of it")

    def test_the_reason_is_no_time_and_no_line_of_the_kernel(self):
        self.assertEqual(ktap.why(["# wrong byte at 7", "# kernel: x", "# 1.5 s", ""]), "wrong byte at 7")
        self.assertEqual(ktap.why([]), "")
        storm = ["# error: only 9 kills", "# error: and more", "# FAIL", "# virtual machine: 12s; its log is there"]
        self.assertEqual(ktap.why(storm), "only 9 kills")

    def test_a_result_without_a_name_has_its_number(self):
        self.assertEqual(ktap.parse(["not ok 3"]).results[0].name, "test 3")

    def test_a_script_that_ends_early_is_a_failure(self):
        outcome = ktap.outcome_of_script("edges", ["1..3", "ok 1 a", "ok 2 b"], 1)
        self.assertEqual(outcome.named(FAILED), ["edges"])
        self.assertIn("2 of 3", outcome.results[-1].reason)
        self.assertTrue(ktap.outcome_of_script("edges", [], 0).failed)

    def test_a_script_that_fails_without_a_bad_result_is_a_failure(self):
        self.assertTrue(ktap.outcome_of_script("edges", ["1..1", "ok 1 a"], 1).failed)
        self.assertFalse(ktap.outcome_of_script("edges", ["1..1", "ok 1 a"], 0).failed)

    def test_a_script_that_cannot_run_here_is_skipped(self):
        outcome = ktap.outcome_of_script("edges", ["1..0 # SKIP no device"], 4)
        self.assertEqual((outcome.status, outcome.results[0].reason), (SKIPPED, "no device"))


JUNIT = """<testsuites name="ci"><testsuite name="ondemandd::upgrade">
<testcase name="good" time="1"/>
<testcase name="bad"><failure message="assertion failed: x" type="test failure">stderr</failure></testcase>
<testcase name="shy"><flakyFailure message="too late" type="test failure"/></testcase>
<testcase name="left"><skipped/></testcase>
</testsuite></testsuites>"""


class Junit(unittest.TestCase):
    def test_each_kind_of_case_is_read(self):
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "junit.xml")
            file.write_text(JUNIT)
            outcome = junit.outcome_of_file(file)
        self.assertEqual([r.status for r in outcome.results], [PASSED, FAILED, UNSTABLE, SKIPPED])
        self.assertEqual(outcome.results[1].name, "ondemandd::upgrade bad")
        self.assertEqual(outcome.results[1].reason, "assertion failed: x")
        self.assertEqual(outcome.results[2].reason, "too late")
