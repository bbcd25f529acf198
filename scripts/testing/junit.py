# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reads the JUnit file of cargo-nextest, which repeats a failed test itself (user/.config/nextest.toml)."""

import xml.etree.ElementTree as ElementTree

from .outcome import FAILED, PASSED, SKIPPED, UNSTABLE, Outcome, Result


def _text(element, *names):
    """What the first of these children says, and what the test has printed."""
    for name in names:
        child = element.find(name)
        if child is not None:
            body = (child.text or "").strip()
            return child.get("message") or body.splitlines()[-1:] and body.splitlines()[-1] or name, body
    return "", ""


def outcome_of_file(path):
    """The outcome of all test cases in the file.  Raises OSError or ParseError."""
    outcome = Outcome()
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            name = f"{suite.get('name')} {case.get('name')}"
            status, names = PASSED, ()
            if case.find("failure") is not None or case.find("error") is not None:
                status, names = FAILED, ("failure", "error")
            elif case.find("flakyFailure") is not None or case.find("flakyError") is not None:
                status, names = UNSTABLE, ("flakyFailure", "flakyError")
            elif case.find("skipped") is not None:
                status = SKIPPED
            reason, body = _text(case, *names)
            outcome.results.append(Result(name, status, reason, tuple(body.splitlines()[-60:])))
    return outcome
