# SPDX-License-Identifier: MIT OR Apache-2.0
"""Everything that is tested, as parts.

A part is divided into slices, each of which runs alone and is recorded alone.  `make test` runs
all slices of the parts of tier TEST.  `.ci/run` adds one slice, chosen by the number of the
commit, of each part of tier SLICED; so a part was run whole after as many commits as it has
slices.  `make soak` runs everything whole.
"""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from .commands import WAITING_SCRIPTS, Selftests, daemon_script, item, machine, script, unit_tests
from .context import REPO

TEST, SLICED, SOAK = "test", "sliced", "soak"
FUZZ_TARGETS = ("command", "key", "xattr", "table")
DAEMON_SCRIPTS = ("culling", "edges", "failover", "identity", "many", "metrics", "remote", "sandbox", "systemd", "upgrade")
GUEST_BUILDS = ("programs", "module")
DEBUG_BUILDS = ("programs", "module-debug")
STORE_BUILDS = ("programs", "module-stores")
STOCK_BUILDS = ("programs", "module-stock")
# The kernels beside the base kernel: each has a module of its own, `module-KIND`.
OTHER_KERNELS = ("debug", "stores", "stock")


@dataclass(frozen=True)
class Part:
    """`seconds`: what a slice takes on two idle processors, emulated; used until a record says better.

    `lane`: what may run beside it (schedule.py).  `repeat`: whether a failure is tried again; not
    for what reads files alone and must fail again, nor for what would be another recording.
    `smp`: its guests always have two processors, for it looks for races (plan.processors).
    """

    name: str
    title: str
    tier: str
    run: Callable
    seconds: int
    slices: int = 1
    lane: str = "guest"
    needs: tuple[str, ...] = GUEST_BUILDS
    repeat: bool = True
    smp: bool = False

    def tag(self, index):
        """The name of a slice: its files, its records, and what repeats it."""
        return f"{self.name}/{index + 1}" if self.slices > 1 else self.name


def host(name, title, run, seconds, lane="host", needs=(), repeat=False):
    return Part(name, title, TEST, run, seconds, 1, lane, needs, repeat)


def guest(name, title, tier, run, seconds, slices=1, needs=GUEST_BUILDS, repeat=True, smp=False):
    return Part(name, title, tier, run, seconds, slices, "guest", needs, repeat, smp)


def daemon(name, prefix, title, tier, backend="rust"):
    lane = "waiting" if name in WAITING_SCRIPTS else "guest"
    return Part(f"{prefix}daemon-{name}", f"{title}: {name}", tier, daemon_script(name, backend), 50, 1, lane)


def _rustdoc(c):
    return ["env", "RUSTDOCFLAGS=-Dwarnings", *c.cargo("doc", "--workspace", "--no-deps")]


def _shellcheck(c):
    return ["bash", c.script("shellcheck-all")]


HOST_PARTS = (
    host("check", "rings, SAFETY, licences, lengths, formatting", item(lambda c: [c.script("check")]), 8),
    host("check-self-test", "each rule can fail", item(lambda c: [c.script("check"), "--self-test"]), 2),
    host("runner", "the test runner itself", item(lambda c: [c.script("test"), "--self-test"]), 10),
    host("shellcheck", "shellcheck", item(_shellcheck), 25),
    host("leak-check", "what looks for leaks can fail", item(lambda c: ["bash", c.script("vm/leak-check"), "self-test"]), 1),
    host("clippy-user", "user space: clippy, warnings are errors",
         item(lambda c: [*c.cargo("clippy", "--workspace", "--all-targets"), "--", "-D", "warnings"]), 60, "cargo"),
    host("doc-user", "user space: documentation, warnings are errors", item(_rustdoc), 30, "cargo"),
    host("deny", "crates of others: licences, where they are from",
         item(lambda c: [c.words["CARGO_DENY"], "--manifest-path", REPO / "user/Cargo.toml", "--locked",
                         "check", "bans", "licenses", "sources"]), 3),
    host("unit", "user space: cargo nextest", unit_tests, 60, "cargo", ("programs",)),
    host("model", "every order of events of a small cache",
         item(lambda c: _model(c)), 20, "host", ("programs",)),
)  # fmt: skip


def _tool(c, name, *words, kind="base"):
    """A script that starts its guests itself, with what was built already."""
    return [c.script(name), *words, "--kernel", c.kernel(kind), "--module", c.modules[kind]]


def _demo(c, _index):
    return [*_tool(c, "demo", "--ktap", "--small", kind="stock"), "--bin", c.bin]


def _demo_of_users(c, _index):
    """As somebody runs it who has just cloned the repository: it builds all itself, and on the kernel built here."""
    return [c.script("demo"), "--ktap", "--rust"]


def _boot(c, _index):
    return [*_tool(c, "boot", "--test"), "--daemon", c.bin / "ondemandd"]


def _packages(c, index):
    return [c.script(("install-test", "deb-test")[index]), c.kernel("base"), c.bin / "ondemandd"]


def _exchange(c, index):
    return [*_tool(c, "vm/exchange"), "--store", c.bin / "ondemand-store", "--slice", f"{index + 1}/{EXCHANGE_SLICES}",
            "--timeout", "800", "--log", c.logs / f"vm-exchange-{index + 1}.log"]  # fmt: skip


def _power_cut(c, index):
    buffered = ("--setup", "fill buffered", "--boots", "3") if index else ()
    return [*_tool(c, "vm/power-cut", *buffered), "--store", c.bin / "ondemand-store",
            "--seed", str(c.seed), "--logs", c.logs / f"power-cut-{index + 1}"]  # fmt: skip


def _reorder(c, index, *words, kind="base"):
    return [*_tool(c, "vm/reorder", *words, kind=kind), "--store", c.bin / "ondemand-store", "--keep", c.logs,
            "--logs", c.logs / f"reorder-{kind}-{index + 1}"]  # fmt: skip


def _reorder_many(c, index):
    """Each slice records for itself; file systems and modes take turns."""
    file_system, fill = REORDER_MODES[index % len(REORDER_MODES)]
    return _reorder(c, index, "--file-system", file_system, "--fill", fill, "--points", REORDER_POINTS,
                    "--seed", str(c.seed * 1000 + index), kind="stores")  # fmt: skip


def _faults(kinds, slices):
    def argv(c, index):
        command = [c.bin / "ondemand-faults", "--kind", kinds, "--slice", f"{index + 1}/{slices}"]
        return machine(c, f"faults-{kinds.replace(',', '-')}-{index + 1}", command, FAULT_LONGEST, "debug", leak_check=True)

    return script(argv)


def _versions(sequences):
    def argv(c, index):
        seed = c.seed * 1000 + index * sequences
        command = [c.bin / "storm", "versions", "--daemon", c.bin / "ondemandd", "--disk", "/run/ondemand/disk",
                   "--run-dir", "/run/ondemand/daemon", "--results", "/run/ondemand/versions",
                   "--nginx", c.words["NGINX"], "--sequences", sequences, "--seed", seed]  # fmt: skip
        return machine(c, f"versions-{sequences}-{index + 1}", command, 300 + 120 * sequences)

    return script(argv)


def _stores(c, index):
    bus = ("--disk-bus", BUSES[index])
    return machine(c, f"stores-{index + 1}", [c.bin / "ondemand-matrix"], 2400, "stores", options=bus)


def _fuzz(seconds):
    return lambda c, index: [c.script("fuzz"), "--built", "--ktap", "--seconds", seconds, "--seed", str(c.seed),
                             FUZZ_TARGETS[index]]  # fmt: skip


def _storm(kills, kind, *serve):
    """A storm; each slice has a seed of its own.  On the debug kernel it may take five times as long."""

    def argv(c, index):
        options = [word for option in serve for word in ("--serve", option)]
        tag = "-".join([kind, *(option.strip("-").replace("=", "-") for option in serve), str(index + 1)])
        return [*_tool(c, "storm", *(["--debug"] if kind == "debug" else []), "--ktap", "--kills", kills, *options, kind=kind),
                "--tag", tag, "--bin", c.bin, "--timeout", 300 + 5 * kills, "--", "--seed", str(c.seed * 1000 + index)]  # fmt: skip

    return script(argv)


EXCHANGE_SLICES = 4
# One operation a slice; the seconds after which one is ended on the reference machine.
FAULT_OPERATIONS, FAULT_LONGEST = 13, 1800
DEBUG_SLICES = 24
# 2,000 points in all.
REORDER_SLICES, REORDER_POINTS = 20, 100
REORDER_MODES = tuple((file_system, fill) for file_system in ("ext4", "xfs") for fill in ("direct", "buffered"))
STORM_SLICES, STORM_KILLS = 25, 20
MODEL_SLICES = 16
MODES = {"buffered": "fill buffered", "fetch": "fetch 4096", "batch": "batch 16"}
BUSES = ("virtio", "scsi", "nvme")
# The disks of selftests-stores, as vm/run is told.
DISKS = tuple(("--disk-bus", bus, "--sector", sector) for bus in ("nvme", "scsi") for sector in ("512", "4096"))
STORM_MODES = {"direct": "--fill=direct", "fetch": "--fetch=1048576", "batch": "--batch=16"}


def _model(c, *words):
    return [f"{c.words['CHECKED_PROGRAMS']}/ondemand-model", "--threads", "1", *words]


def _large_scopes(c, index, tag):
    """Scopes take turns, so that the large ones, which are neighbours, are in different slices."""
    listing = subprocess.run([_model(c)[0], "--list"], capture_output=True, text=True, check=True).stdout
    names = [line.partition(":")[0] for line in listing.splitlines()]
    return item(lambda c: _model(c, *names[index::MODEL_SLICES]))(c, index, tag)


def _bench(c, _index):
    return [c.script("bench"), "--quick", "--count", "--pairs", "1"]


GUEST_PARTS = (
    guest("selftests", "selftests, base kernel", TEST, Selftests(2, waiting=False), 140, 2),
    Part("selftests-waiting", "selftests that wait for deadlines, base kernel", TEST, Selftests(1, waiting=True), 100, 1, "waiting"),
    guest("selftests-smack", "selftests with Smack", TEST, Selftests(1, smack=True), 25),
    guest("reorder", "a loss of power with a disk that reorders its writes, 50 points", TEST,
          script(lambda c, index: _reorder(c, index, "--seed", str(c.seed))), 60, repeat=False),
    guest("demo", "make demo with small images, on Debian's own kernel", TEST, script(_demo), 90, needs=STOCK_BUILDS),
    *(daemon(name, "", "the daemon", TEST) for name in DAEMON_SCRIPTS),
    guest("selftests-debug", "selftests, debug kernel, then rmmod", SLICED,
          Selftests(DEBUG_SLICES, "debug"), 90, DEBUG_SLICES, DEBUG_BUILDS, smp=True),
    guest("storm-debug", f"a storm of {STORM_KILLS} kills, debug kernel, then rmmod", SLICED,
          _storm(STORM_KILLS, "debug"), 90, STORM_SLICES, DEBUG_BUILDS, smp=True),
    guest("faults", "allocations that fail, debug kernel, then rmmod", SLICED,
          _faults("slab", FAULT_OPERATIONS), 90, FAULT_OPERATIONS, DEBUG_BUILDS),
    guest("fuzz", "a pure file, fuzzed for half a minute", SLICED, script(_fuzz("30")), 35, 4, ("fuzz-targets",)),
    guest("versions", "versions of images, replaced in random order", SLICED, _versions(2), 80),
    guest("power-cut", "a store over power cuts", SLICED, script(_power_cut), 50, 2),
    guest("packages", "make install, make deb, and what follows", SLICED, script(_packages), 70, 2, (*GUEST_BUILDS, "module-stock")),
    guest("exchange", "a store under both modules", SLICED, script(_exchange), 40, EXCHANGE_SLICES),
    guest("boot", "a root file system over fscache, cold and warm", SLICED, script(_boot), 60),
)  # fmt: skip

SOAK_PARTS = (
    guest("faults-more", "pages and disk requests that fail, debug kernel, then rmmod", SOAK,
          _faults("page,disk", 2 * FAULT_OPERATIONS), 180, 2 * FAULT_OPERATIONS, DEBUG_BUILDS),
    guest("versions-long", "a hundred sequences of versions that are replaced", SOAK, _versions(25), 600, 4),
    guest("stores", "each file system on virtio-blk, SCSI and NVMe, and its disk fails", SOAK,
          script(_stores), 900, len(BUSES), STORE_BUILDS),
    guest("reorder-many", "the same on ext4 and XFS, filled directly and through memory, 2,000 points", SOAK,
          script(_reorder_many), 90, REORDER_SLICES, STORE_BUILDS, repeat=False),
    guest("selftests-stores", "selftests on NVMe and SCSI disks, and what needs XFS, Btrfs, casefold", SOAK,
          Selftests(len(DISKS), "stores", disks=DISKS), 300, len(DISKS), STORE_BUILDS),
    *(guest(f"selftests-debug-{mode}", f"selftests, debug kernel, {command}", SOAK,
            Selftests(DEBUG_SLICES, "debug", setup=(command,)), 90, DEBUG_SLICES, DEBUG_BUILDS)
      for mode, command in MODES.items()),
    *(guest(f"storm-debug-{mode}", f"a storm of 25 kills, debug kernel, {option}", SOAK,
            _storm(25, "debug", option), 150, 4, DEBUG_BUILDS)
      for mode, option in STORM_MODES.items()),
    guest("demo-rust", "make demo KERNEL=rust, with what it builds", SOAK, script(_demo_of_users), 300, needs=("module",)),
    guest("storm", "a storm of 500 kills, base kernel", SOAK, _storm(500, "base"), 200, 20),
    guest("fuzz-long", "a pure file, fuzzed for ten minutes", SOAK, script(_fuzz("600")), 610, 4, ("fuzz-targets",)),
    Part("model-large", "every order of events, large scopes", SOAK,
         _large_scopes, 50, MODEL_SLICES, "guest", ("programs",)),
    guest("c-selftests", "selftests, the kernel's own cachefiles", SOAK, Selftests(2, backend="c"), 160, 2),
    guest("c-selftests-smack", "selftests with Smack, the kernel's own cachefiles", SOAK,
          Selftests(1, backend="c", smack=True), 25),
    *(daemon(name, "c-", "the daemon on the kernel's own cachefiles", SOAK, "c") for name in DAEMON_SCRIPTS),
    Part("bench", "make bench COUNT=1 QUICK=1, one pair", SOAK, item(lambda c: _bench(c, 0)), 150, 1, "guest", ()),
)  # fmt: skip

PARTS = HOST_PARTS + GUEST_PARTS + SOAK_PARTS
BY_NAME = {part.name: part for part in PARTS}
