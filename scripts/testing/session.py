# SPDX-License-Identifier: MIT OR Apache-2.0
"""One run from set-up to the closing lines: prepares, schedules, records, cleans up."""

import dataclasses
import fcntl
import os
import resource
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from . import builds, closing, records
from .commands import Selftests
from .context import REPO, Commit, Context, shell_words
from .cleanup import MARK, CleanupProcess
from .outcome import FAILED, SKIPPED, UNSTABLE, Outcome, Result
from .parts import OTHER_KERNELS
from .plan import processors
from .process import Cancelled, Processes
from .progress import Progress, clock, file_name, say, warn
from .repeat import run_part
from .schedule import Scheduler, Task
from .selftests import select
from .state import open_failures


class Interrupted(Exception):
    """A signal asks this run to end; the exception's argument is its number."""


def _interrupt(number, _frame):
    raise Interrupted(number)


class Session:
    """`by`: test, ci or soak; the name of the directory below results/, too.  Use as a context
    manager: at its end no process, mount or temporary file of it is left."""

    def __init__(self, by, seed=None, setup=()):
        self.by, self.begun, self.budget = by, time.monotonic(), None
        words = shell_words()
        commit = Commit.here()
        results = REPO / "results" / by
        words["LOGS"] = os.environ.get("LOGS") or str(results / "logs")
        self.c = Context(words, commit, seed if seed is not None else commit.number, results, setup=tuple(setup))
        self.records = records.Records(self.c.cache / "results.jsonl")
        self.outcomes, self.entries = {}, []
        self._of_task = {}

    def __enter__(self):
        self._lock()
        for name in ("bin", "logs"):
            shutil.rmtree(self.c.results / name, ignore_errors=True)
        for old in self.c.results.glob("*.ktap"):
            old.unlink()
        mark = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._temporary = Path(tempfile.mkdtemp(prefix="ondemand-"))
        # Tests run programs as other users in it.
        self._temporary.chmod(0o755)
        self._scratch = self.c.cache / "scratch" / mark
        self._scratch.mkdir(parents=True)
        self._environment = self.c.environment(MARK, mark, self._temporary)
        self._environment["ONDEMAND_SCRATCH"] = str(self._scratch)
        self._cleanup = CleanupProcess(mark, [self._temporary, self._scratch])
        self.c.processes = Processes(self._environment, REPO)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        return self

    def __exit__(self, *_):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.c.processes.cancel()
        if not self._cleanup.close():
            warn("some processes of this run could not be ended: they wait in the kernel")

    def _lock(self):
        self.c.results.mkdir(parents=True, exist_ok=True)
        # Kept open, and so locked, until this process ends.
        self._locked = open(self.c.results / ".lock", "w")
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"another run uses {self.c.results}: wait for it, or end it") from None

    def prepare(self, kinds):
        """Set-up, and the kernels of these kinds; shows its own progress.  False if it failed."""
        commands = [[self.c.script("setup")]]
        commands += [[self.c.script("kernel/build"), *([] if kind == "base" else [f"--{kind}"])] for kind in kinds]
        for argv in commands:
            status = subprocess.run(list(map(str, argv)), env=self._environment, check=False).returncode
            if status:
                name = Path(argv[0]).name
                outcome = Outcome([Result(name, FAILED, f"status {status}, see above")])
                self._keep(name, outcome, None, 0, "make setup kernel kernel-debug kernel-stores")
                return False
        return True

    def kinds(self, entries):
        """The kernels that these entries need: base always, for the module is linted for it."""
        needs = {need for entry in entries for need in entry.part.needs}
        return ["base", *(kind for kind in OTHER_KERNELS if f"module-{kind}" in needs)]

    def build_tasks(self, entries):
        """What the entries need built and is not, with what those builds need themselves."""
        wanted = {need for entry in entries for need in entry.part.needs}
        wanted |= {need for name in wanted for need in builds.BUILDS[name].needs}
        tasks = []
        for name, build in builds.BUILDS.items():
            if name in wanted and name not in self.outcomes:
                run = lambda name=name, build=build: build.run(self.c, name)  # noqa: E731
                tasks.append(Task(name, build.title, build.lane, build.seconds, run, build.needs))
        return tasks

    def task(self, entry, known, name=None, repeat=True, seed=None):
        """The task of an entry.  `known`: all records, for how long it will take."""
        name = name or entry.tag
        seconds = records.expected_seconds(known, entry.part, entry.index) if not entry.words else 30.0
        self._of_task[name] = (entry, self.c.seed if seed is None else seed)

        def run():
            # Made when it begins: the builds before it have set where the programs are.
            seed = self._of_task[name][1]
            guests = {"ONDEMAND_CPUS": str(processors(entry, seed, self.by))}
            c = dataclasses.replace(self.c, seed=seed, processes=self.c.processes.with_environment(guests))
            # The same slice may run twice at a time: its files are named after the task.
            tag = file_name(name)
            return self._selected(c, entry, tag) if entry.words else run_part(c, entry.part, entry.index, tag, repeat)

        return Task(name, entry.part.title, entry.part.lane, seconds, run, entry.part.needs)

    @staticmethod
    def _selected(c, entry, tag):
        names = entry.part.run.names(c)
        for word in entry.words:
            if not select(names, [word]):
                return Outcome([Result(word, FAILED, f"no selftest of {entry.part.name} begins so; ondemand-selftest --list")])
        return entry.part.run.named(c, tag, select(names, entry.words))

    def run(self, tasks, ordered=False):
        """Runs the tasks; what has ended is recorded at once.  False if the run was given up."""
        self._progress = Progress(tasks, self.c.results, self.budget, self.begun)
        self.alive = self._progress.alive
        try:
            Scheduler(tasks, self, self.outcomes, ordered).run()
        except Cancelled:
            return False
        return True

    def ended(self, task, outcome, running):
        """Called by the scheduler."""
        self._progress.ended(task, outcome, running)
        entry, seed = self._of_task.get(task.name, (None, 0))
        again = builds.BUILDS[task.name].again if entry is None else ""
        self._keep(task.name, outcome, entry, seed, again)

    def _keep(self, name, outcome, entry, seed, again):
        if outcome.left_out:
            return
        self.outcomes[name] = outcome
        selftests = entry is not None and isinstance(entry.part.run, Selftests)
        for result in outcome.results:
            if result.status in (FAILED, UNSTABLE):
                test = result.name if selftests else None
                command = again or closing.repeat_command(entry.part.name, entry.tag, seed, test)
                self.entries.append((result.status, result.name, result.reason, command))
        if entry is not None and not self.c.setup and outcome.status != SKIPPED:
            known = open_failures(self.records.read())
            tests = [failure.test for failure in known if failure.part == entry.part.name]
            self.records.append(
                records.of(entry.part, entry.index, outcome, self.c.commit, seed, self.by, bool(entry.words), tests)
            )

    def close(self, tasks=()):
        """Prints the closing lines; returns the exit status."""
        unfinished = [task.name for task in tasks if task.name not in self.outcomes]
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = f"{clock(time.monotonic() - self.begun)}, {clock(used.ru_utime + used.ru_stime)} of processor time"
        lines = closing.closing(self.outcomes.values(), self.entries, took, self.c.logs, unfinished)
        say("\n".join(lines))
        (self.c.results / "summary").write_text(lines[-1] + "\n")
        return int(bool(unfinished) or any(outcome.failed for outcome in self.outcomes.values()))
