# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154
#
# What the tests beside this file share.  To be sourced, after DAEMON, WORK and RUN
# are set; needs root, the device and mkfs.erofs, or ends the test with exit 4 = skip.

# shellcheck source-path=SCRIPTDIR source=../../../scripts/deadline.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/deadline.sh"
# Seconds that one thing may take.  Nothing that passes takes as long, on a machine like this one that is
# not busy; who waits with `within` has more on one that is.
DEADLINE=$(seconds 60)

# A command that fails where none should ends the test; what it was is said.
set -E
trap 'echo "# line $LINENO ended with $?: $BASH_COMMAND"; last_words' ERR
# last_words: what the daemon has logged last.
last_words() { echo "# the daemon's last words:" && tail -n 60 "$WORK/log" | sed 's/^/# /'; }

skip() { echo "1..0 # SKIP $*"; exit 4; }
((EUID == 0)) || skip "not root"
[[ -c /dev/cachefiles ]] || skip "no /dev/cachefiles"
command -v mkfs.erofs >/dev/null || skip "no mkfs.erofs"

# plan COUNT: the first lines of KTAP.
plan() { printf 'TAP version 13\n1..%d\n' "$1"; }

number=0 failed=0
# result STATUS TEXT: one line of KTAP.
result() {
    number=$((number + 1))
    if (($1 == 0)); then echo "ok $number $2"; else echo "not ok $number $2"; failed=1; fi
}
# within CONDITION...: waits until the command succeeds; fails at the deadline.
within() { within_seconds "$DEADLINE" "$@"; }
# ended PID: waits for a child of ours; its status, and fails at the deadline.
ended() {
    within is_gone "$1" || return 1
    wait "$1"
}
is_gone() { [[ ! -d /proc/$1 ]]; }
# is_free: the device can be opened.  The threads of who had it may end after its process.
is_free() { (: 8<>/dev/cachefiles) 2>/dev/null; }
# replaced PID: another worker serves.  There is no file from the end of the one, which the keeper sees
# a while after the kill, until its successor is ready.
replaced() {
    local now
    # Not $(<...): where that fails, bash ends the script, whatever the condition that it is part of, and
    # says nothing.
    now=$(cat "$RUN/worker.pid") || return 1
    [[ -n $now && $now != "$1" ]]
}
# ready PID: the keeper of that pid has a worker that serves.  One that was killed has left its file.
ready() {
    local told
    told=$(cat "$RUN/keeper.pid") || return 1
    [[ $told == "$1" ]]
}
# field NAME: a number of the keeper's statistics.
field() { "$DAEMON" stats --run-dir "$RUN" --json | sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p"; }
