#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Many at once: 64 images that are mounted and read through one ondemandd, and a source of 10,000 blobs
# of which 100 are open.  KTAP; exit 4 = skip.
#
# To be run as root in a virtual machine with a cachefiles module loaded:
#
#   scripts/vm/run -- bash user/ondemandd/tests/many.sh user/target/debug/ondemandd
#
# It would have caught: an answer that goes to another image's reader, a reader that starves beside others, a
# status that leaves images out, a daemon whose memory grows with its source.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=${1:?usage: many.sh ONDEMANDD}
WORK=${ONDEMAND_DISK:-/var/tmp}/many.$$
RUN=$WORK/run
# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"

AT_ONCE=64 TREES=8 FEW=10 BLOBS=10000 OPENED=100
plan 6

KEEPER=''
unmount() { grep -o "$WORK/mnt/[^ ]*" /proc/mounts | xargs -r umount; }
finish() {
    unmount || true
    [[ -z $KEEPER ]] || kill "$KEEPER" 2>/dev/null || true
}
trap finish EXIT

mkdir -p "$WORK"/{cache,blobs,few,thousands,mnt}
for ((i = 0; i < TREES; i++)); do
    mkdir "$WORK/tree$i"
    head -c 1500000 /dev/urandom >"$WORK/tree$i/large"
    head -c $((1000 * i + 1)) /dev/urandom >"$WORK/tree$i/small"
    mkfs.erofs --quiet "$WORK/image$i" "$WORK/tree$i" >"$WORK/mkfs.log" 2>&1
done
for ((i = 0; i < AT_ONCE; i++)); do ln "$WORK/image$((i % TREES))" "$WORK/blobs/at-once$i"; done

# serve DIRECTORY: a keeper with that source.
serve() {
    "$DAEMON" serve --cache "$WORK/cache" --source "$1" --run-dir "$RUN" 2>>"$WORK/log" &
    KEEPER=$!
    within ready "$KEEPER"
}
# stop: unmounts all, and ends the keeper.
stop() {
    unmount || return 1
    kill -TERM "$KEEPER"
    ended "$KEEPER" || return 1
    KEEPER=''
}
# mounted NAME: mounts it, once it is there.
mounted() { mkdir -p "$WORK/mnt/$1" && timeout $((3 * DEADLINE)) mount -t erofs none -o "fsid=$1" "$WORK/mnt/$1"; }

serve "$WORK/blobs" || { echo "Bail out! no keeper"; last_words; exit 1; }

# all COMMAND...: runs it for each number below AT_ONCE at the same time; fails if one does.
all() {
    local i pids=() rc=0
    for ((i = 0; i < AT_ONCE; i++)); do "$@" "$i" & pids+=("$!"); done
    for i in "${pids[@]}"; do wait "$i" || rc=1; done
    return "$rc"
}
mount_one() { mounted "at-once$1"; }
compare() { timeout $((6 * DEADLINE)) diff -r "$WORK/tree$(($1 % TREES))" "$WORK/mnt/at-once$1"; }

rc=0; all mount_one || rc=1
result "$rc" "$AT_ONCE images are mounted at once"

rc=0; all compare || rc=1
result "$rc" "and read at once, every byte of them"

# listed: how many of the lines on standard input are of such an image.
listed() { grep -cE "at-once[0-9]+ on $WORK/mnt/at-once[0-9]+$" || true; }
rc=0
status=$("$DAEMON" status --run-dir "$RUN") || rc=1
[[ $(listed <<<"$status") == "$AT_ONCE" ]] || rc=1
# An image has a few blocks that nobody needs.  The kernel's own module names a file in the store when its
# image is unmounted, and not before.
[[ ${ONDEMAND_BACKEND:-rust} != rust ]] || [[ $(grep -cE '\] +(9[0-9]|100) %' <<<"$status") == "$AT_ONCE" ]] || rc=1
((rc == 0)) || printf '%s\n' "# ${status//$'\n'/$'\n'# }"
[[ $("$DAEMON" top --run-dir "$RUN" -b --count 1 | listed) == "$AT_ONCE" ]] || rc=1
(($(field source_errors) == 0)) || rc=1
result "$rc" "status and top show all of them, and what they have cached"

rc=0; stop || rc=1
result "$rc" "they are unmounted, and the keeper ends"

# rss PID: its memory in KiB.
rss() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$1/status"; }
# measure DIRECTORY COUNT: serves it with so many of its images mounted; memory of worker and keeper
# are in $MEMORY.
measure() {
    local i
    serve "$1" || return 1
    for ((i = 0; i < $2; i++)); do
        mounted "blob$i" || return 1
        cmp "$WORK/mnt/blob$i/small" "$WORK/tree1/small" || return 1
    done
    # An OPEN is counted after it is answered.
    opened() { (($(field opens) == $1)); }
    within opened "$2" || return 1
    MEMORY=("$(rss "$(cat "$RUN/worker.pid")")" "$(rss "$KEEPER")")
    echo "# with $2 of $(find "$1" -type f | wc -l) open: worker ${MEMORY[0]} KiB, keeper ${MEMORY[1]} KiB"
    stop
}
# Not all of them are images, but all are files.
seq -f "$WORK/thousands/other%.0f" $((BLOBS - OPENED)) | xargs -n 500 truncate -s 1M
for ((i = 0; i < OPENED; i++)); do
    ln "$WORK/image1" "$WORK/thousands/blob$i"
    ((i >= FEW)) || ln "$WORK/image1" "$WORK/few/blob$i"
done

MEMORY=()
rc=0; measure "$WORK/few" "$FEW" || rc=1
few=("${MEMORY[@]}")
# Under a name that was cached before, nothing would be asked for.
rm -rf "$WORK/cache" && mkdir "$WORK/cache"
MEMORY=()
measure "$WORK/thousands" "$OPENED" || rc=1
result "$rc" "$OPENED of $BLOBS blobs are open at once"

((rc != 0)) || ((MEMORY[0] < 2 * few[0] && MEMORY[1] < 2 * few[1])) || rc=1
result "$rc" "which takes less than twice the memory of $FEW of $FEW"

((failed == 0)) || last_words
exit "$failed"
