#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Runs one test as the kernel's kselftest/runner.sh does: the test's output as
# comments, one result for all of it.  Status 0: passed or skipped, 1: failed.
#
#   ./run_alone.sh SECONDS TEST [ARGUMENT ...]
set -uo pipefail

if (($# < 2)) || [[ ! $1 =~ ^[0-9]+$ ]]; then
    echo "usage: ${0##*/} SECONDS TEST [ARGUMENT ...]" >&2
    exit 2
fi
seconds=$1 name="selftests: ondemand: $(basename "$2")"
shift

echo "TAP version 13"
echo "1..1"
echo "# timeout set to $seconds"
echo "# $name"
timeout --foreground "$seconds" "$@" 2>&1 | sed -u 's/^/# /'
rc=${PIPESTATUS[0]}
case $rc in
0) echo "ok 1 $name" ;;
4) echo "ok 1 $name # SKIP" ;;
124) echo "not ok 1 $name # TIMEOUT $seconds seconds" ;;
*) echo "not ok 1 $name # exit=$rc" ;;
esac
((rc == 0 || rc == 4))
