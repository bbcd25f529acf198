#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The metrics of ondemandd are those of `stats`, and outlive the worker.  KTAP; exit 4 = skip.
#
# To be run as root in a virtual machine with a cachefiles module loaded:
#
#   scripts/vm/run --backend c -- user/ondemandd/tests/metrics.sh user/target/debug/ondemandd
#
# It would have caught: metrics of the worker instead of the keeper, numbers that differ from `stats`, a
# client that is not answered while another one says nothing, a control socket that anybody may use, a `top`
# that shows a daemon which is gone.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=${1:?usage: metrics.sh ONDEMANDD}
WORK=${ONDEMAND_DISK:-/var/tmp}/metrics.$$
RUN=$WORK/run
PORT=${2:-9464}
# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"
ip link set lo up 2>/dev/null || true
ip -br addr show lo 2>/dev/null | grep -q 127.0.0.1 || skip "no loopback interface"

plan 6

KEEPER=''
finish() {
    umount "$WORK/mnt" 2>/dev/null || true
    [[ -z $KEEPER ]] || kill "$KEEPER" 2>/dev/null || true
}
trap finish EXIT

# metric NAME: its value, as the keeper serves it.
metric() {
    timeout "$DEADLINE" bash -c "exec 8<>/dev/tcp/127.0.0.1/$PORT &&
        printf 'GET /metrics HTTP/1.1\r\n\r\n' >&8 && cat <&8" | sed -n "s/^ondemandd_$1 //p"
}

mkdir -p "$WORK/blobs" "$WORK/cache" "$WORK/tree" "$WORK/mnt"
head -c 2000000 /dev/urandom >"$WORK/tree/file"
mkfs.erofs --quiet "$WORK/blobs/image" "$WORK/tree" >"$WORK/mkfs.log" 2>&1
"$DAEMON" serve --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$RUN" \
    --metrics "127.0.0.1:$PORT" 2>"$WORK/log" &
KEEPER=$!
within ready "$KEEPER" || { echo "Bail out! no keeper"; cat "$WORK/log"; exit 1; }

rc=0
timeout "$DEADLINE" mount -t erofs none -o fsid=image "$WORK/mnt" || rc=1
timeout "$DEADLINE" cmp "$WORK/mnt/file" "$WORK/tree/file" || rc=1
reads=$(field reads)
((reads > 0)) || rc=1
# A reader has its bytes a moment before the worker counts them.
agree() {
    [[ $(metric reads_total) == "$(field reads)" && $(metric opens_total) == "$(field opens)" ]] &&
        [[ $(metric request_duration_seconds_count) == "$(field requests_ended)" ]] &&
        [[ $(metric requests_in_flight) == 0 && $(metric worker_up) == 1 ]]
}
within agree || rc=1
result "$rc" "metrics are the numbers of stats"

rc=0
[[ $(stat -c '%F %a' "$RUN/control.sock") == "socket 600" ]] || rc=1
"$DAEMON" stats --run-dir "$RUN" >/dev/null || rc=1
[[ ! -e $RUN/stats.json ]] || { rc=1; echo "# not asked at the socket"; }
# Whoever has got past the modes.
chmod 666 "$RUN/control.sock"
setpriv --reuid 65534 --regid 65534 --clear-groups "$DAEMON" stats --run-dir "$RUN" 2>"$WORK/refused" && rc=1
grep -q "user 65534 may not ask" "$WORK/refused" || { rc=1; sed 's/^/# /' "$WORK/refused"; }
chmod 600 "$RUN/control.sock"
kill -USR1 "$KEEPER"
within test -s "$RUN/stats.json" || rc=1
result "$rc" "stats asks at the socket, where no other user may, and SIGUSR1 still writes the file"

rc=0
# The first table is of all the time so far, with all READs in it.
timeout "$DEADLINE" "$DAEMON" top --run-dir "$RUN" --batch --count 2 --interval 0.5 >"$WORK/top" || rc=1
[[ $(grep -c "^keeper $KEEPER, worker $(cat "$RUN/worker.pid"), " "$WORK/top") == 2 ]] || rc=1
[[ $(grep -c "rates since the keeper's start$" "$WORK/top") == 1 ]] || rc=1
awk '/READs/ { getline; seen++; if (seen == 1 && $1 > 0) first = 1; if (seen == 2 && $1 == "0.0") idle = 1 }
    END { exit !(first && idle) }' "$WORK/top" || rc=1
# The kernel's own module names a file in the store when its image is unmounted, and not before.
known=' MiB +[0-9]+'
[[ ${ONDEMAND_BACKEND:-rust} == rust ]] || known=' - +-'
[[ $(grep -cE "$known  image on $WORK/mnt$" "$WORK/top") == 2 ]] || rc=1
((rc == 0)) || sed 's/^/# /' "$WORK/top"
result "$rc" "top tells rates, and what is cached of an image"

rc=0
kill -KILL "$(cat "$RUN/worker.pid")" || rc=1
restarted() { [[ $(metric worker_restarts_total) == 1 ]]; }
within restarted || rc=1
(($(metric reads_total) >= reads)) || rc=1
result "$rc" "they outlive the worker, and count its successor"

# The silent client is given up after five seconds, which would look the same: an answer counts that came
# before, and on a slow machine not each does.
overtakes() {
    local rc=1
    exec 7<>"/dev/tcp/127.0.0.1/$PORT"
    [[ $(metric worker_restarts_total) != 1 ]] || read -r -t 0 -u 7 || rc=0
    exec 7>&-
    return "$rc"
}
rc=0; within overtakes || rc=1
result "$rc" "a client that says nothing holds up no other"

umount "$WORK/mnt"
kill -TERM "$KEEPER"
rc=0; ended "$KEEPER" || rc=1
KEEPER=''
timeout "$DEADLINE" "$DAEMON" top --run-dir "$RUN" -b --count 1 >"$WORK/top" || rc=1
grep -q "^no daemon: no keeper answers" "$WORK/top" || rc=1
result "$rc" "the keeper ends, and top says so"

((failed == 0)) || last_words
exit "$failed"
