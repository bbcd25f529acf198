# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which slices a command line, a commit or a round of soak stands for.  Nothing here runs anything."""

from dataclasses import dataclass

from .commands import Selftests
from .outcome import PASSED, UNSTABLE
from .parts import BY_NAME, HOST_PARTS, PARTS, SLICED, TEST

DEBUG_PARTS = ("selftests-debug", "storm-debug", "fuzz")


@dataclass(frozen=True)
class Entry:
    """A slice (`index` from 0), or of selftests some by name: words that names begin with."""

    part: object
    index: int = 0
    words: tuple[str, ...] = ()

    @property
    def tag(self):
        return self.part.tag(self.index) if not self.words else f"{self.part.name}:{','.join(self.words)}"


class Unknown(ValueError):
    """A word of the command line that stands for nothing; the message says what is possible."""


def whole(parts):
    return [Entry(part, index) for part in parts for index in range(part.slices)]


def of_test():
    """`make test`: what every change is tested with."""
    return whole(part for part in PARTS if part.tier == TEST)


def of_commit(number):
    """`.ci/run`: the same, and one slice of each longer part; the next commit has the next slice."""
    return of_test() + [Entry(part, number % part.slices) for part in PARTS if part.tier == SLICED]


# In one of so many runs a slice has guests with two processors.  No part has 5 slices, so that each
# slice has its turn.
SMP_TURN = 5


def processors(entry, seed, by):
    """How many processors the guests of a slice have.

    Emulated, two take half as much again for the same work: they wait for each other with spin locks
    and interrupts.  So that two are not forgotten, soak has two, and here each slice has two in one of
    SMP_TURN runs, by turns.  `seed`: of the slice, here the number of the commit.
    """
    if by == "soak" or entry.part.smp:
        return 2
    return 1 if (seed + PARTS.index(entry.part) + entry.index) % SMP_TURN else 2


def of_words(words, selftests="selftests"):
    """NAME, NAME/SLICE, PART:TEST[,TEST...] or the beginning of selftests' names.

    `selftests`: the part that takes the last kind.
    """
    entries, names = [], []
    for word in words:
        name, colon, tests = word.partition(":")
        name, slash, number = name.partition("/")
        part = BY_NAME.get(name)
        if part is None:
            if colon or slash:
                raise Unknown(f"no part is called {name}; scripts/test --list names them")
            names.append(word)
        elif colon:
            if not isinstance(part.run, Selftests) or not tests:
                raise Unknown(f"{word}: only of selftests some can be chosen, as selftests:d05_name")
            entries.append(Entry(part, 0, tuple(tests.split(","))))
        elif slash:
            if not number.isdigit() or not 1 <= int(number) <= part.slices:
                raise Unknown(f"{word}: {name} has the slices 1 to {part.slices}")
            entries.append(Entry(part, int(number) - 1))
        else:
            entries += whole([part])
    smack = tuple(name for name in names if name.startswith("smack"))
    others = tuple(name for name in names if name not in smack)
    if others:
        entries.append(Entry(BY_NAME[selftests], 0, others))
    if smack:
        entries.append(Entry(BY_NAME["c-selftests-smack" if selftests.startswith("c-") else "selftests-smack"], 0, smack))
    return list(dict.fromkeys(entries))


def missing(entries, records, commit):
    """Of `entries` those that no record says have passed on this commit; all, if there are none: a run
    that was cut off goes on, and one that was complete begins anew."""
    passed = {
        (record.part, record.slice, record.slices)
        for record in records
        if (record.commit, record.dirty) == (commit.name, commit.dirty)
        and record.status in (PASSED, UNSTABLE)
        and not record.selected
    }
    left = [entry for entry in entries if (entry.part.name, entry.index + 1, entry.part.slices) not in passed]
    return left or list(entries)


def of_options(options):
    """The entries for scripts/test's options."""
    selftests = "selftests-debug" if options.debug else "selftests"
    if options.backend == "c":
        selftests = "c-selftests"
    if options.names:
        return of_words(options.names, selftests)
    if options.host:
        return whole(HOST_PARTS)
    if options.setup:
        return whole([BY_NAME[selftests]])
    if options.backend == "c":
        return whole(part for part in PARTS if part.name.startswith("c-"))
    if options.debug:
        return whole(BY_NAME[name] for name in DEBUG_PARTS)
    return of_test()
