# SPDX-License-Identifier: MIT OR Apache-2.0
"""Commands with deadlines, and what stays behind of a run: nothing."""

import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from testing import cleanup
from testing.process import TIMED_OUT, Cancelled, Processes
from testing.speed import LARGEST, Deadline, slowness

WAIT = 60
SCRIPTS = Path(__file__).resolve().parents[2]


def within(condition, seconds=WAIT):
    deadline = Deadline(seconds)
    while not condition():
        if not deadline.remaining():
            raise AssertionError(f"not within {deadline}")
        time.sleep(0.02)


class Temporary(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name)


class Commands(Temporary):
    def setUp(self):
        super().setUp()
        self.processes, self.log = Processes(dict(os.environ), "/"), self.path / "log"

    def test_the_status_and_the_output_are_kept(self):
        status = self.processes.run(["sh", "-c", "echo out; echo err >&2; exit 3"], self.log, WAIT)
        self.assertEqual((status, self.log.read_text()), (3, "out\nerr\n"))
        self.assertEqual(self.processes.run(["sh", "-c", "kill -9 $$"], self.log, WAIT), 128 + 9)

    def test_at_its_deadline_all_of_it_ends(self):
        status = self.processes.run(["sh", "-c", "sleep 600 & echo $!; wait"], self.log, 0.5)
        self.assertEqual(status, TIMED_OUT)
        pid = self.log.read_text().split()[0]
        within(lambda: not Path("/proc", pid).exists())

    def test_giving_up_ends_what_runs_and_lets_nothing_begin(self):
        caught = []

        def run():
            try:
                self.processes.run(["sleep", "600"], self.log, WAIT * 10)
            except Cancelled as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        within(lambda: self.processes._running)
        self.processes.cancel()
        thread.join(WAIT)
        self.assertEqual(len(caught), 1)
        with self.assertRaises(Cancelled):
            self.processes.run(["true"], self.log, WAIT)


class Speed(unittest.TestCase):
    def test_a_slow_machine_has_longer_deadlines_a_fast_one_no_shorter_ones(self):
        def measured(seconds):
            times = iter([0.0, seconds])
            return slowness(work=lambda: None, clock=lambda: next(times))

        self.assertEqual(measured(0.001), 1.0)
        self.assertAlmostEqual(measured(0.12), 3.0)
        self.assertEqual(measured(100), LARGEST)

    def test_a_deadline_is_extended_if_the_machine_is_slower_at_its_end(self):
        now, factors = [0.0], iter([1.0, 3.0, 3.0])
        deadline = Deadline(10, measure=lambda: next(factors), clock=lambda: now[0])
        self.assertEqual(deadline.remaining(), 10)
        now[0] = 10.0
        self.assertEqual(deadline.remaining(), 20)
        now[0] = 30.0
        self.assertEqual(deadline.remaining(), 0)
        self.assertEqual(str(deadline), "10 s x 3.0")


RUN = """
import subprocess, sys, time
from testing.cleanup import CleanupProcess, MARK
import os
os.environ[MARK] = sys.argv[1]
CleanupProcess(sys.argv[1], sys.argv[2:])
# One in a session of its own that ignores SIGTERM, with a child.
subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 600 & while :; do wait; done"], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


class KilledRuns(Temporary):
    def test_a_run_that_is_killed_leaves_no_process_and_no_file(self):
        mark, directory = f"test-{os.getpid()}", self.path / "run"
        (directory / "below").mkdir(parents=True)
        (directory / "below/file").touch()
        # The run itself does not have the mark when it begins: what is looked for is its children.
        run = subprocess.Popen([sys.executable, "-c", RUN, mark, directory], cwd=SCRIPTS, stdout=subprocess.PIPE, text=True)
        self.addCleanup(run.stdout.close)
        self.assertEqual(run.stdout.readline(), "ready\n")
        within(lambda: len(cleanup.marked(mark)) >= 2)
        run.kill()
        run.wait(WAIT)
        within(lambda: not cleanup.marked(mark) and not directory.exists())

    def test_an_orderly_end_cleans_up_as_well(self):
        mark, directory = f"orderly-{os.getpid()}", self.path / "run"
        directory.mkdir()
        process = cleanup.CleanupProcess(mark, [directory])
        child = subprocess.Popen(["sleep", "600"], env={**os.environ, cleanup.MARK: mark})
        within(lambda: cleanup.marked(mark))
        self.assertTrue(process.close())
        self.assertEqual(child.wait(WAIT), -15)
        self.assertFalse(directory.exists())


if __name__ == "__main__":
    unittest.main()
