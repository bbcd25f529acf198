# SPDX-License-Identifier: MIT OR Apache-2.0
"""The test runner behind scripts/test, scripts/soak and .ci/run: see docs/testing.md."""
