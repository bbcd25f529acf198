#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Mounts EROFS images that ondemandd serves, and reads every file of them while the worker is
# killed with SIGKILL again and again.  Passes when every byte is right, the keeper has replaced
# each worker, and an orderly stop frees the device.  KTAP; exit 4 = skip.
#
# To be run as root in a virtual machine with a cachefiles module loaded:
#
#   scripts/vm/run --backend c -- user/ondemandd/tests/failover.sh user/target/debug/ondemandd
#
# It would have caught: a takeover without restore, a worker that closes an unknown object too
# late, data written at the wrong offset, a last block that is not padded, a keeper that slows
# down although its workers are of use.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=${1:?usage: failover.sh ONDEMANDD [IMAGES [SECONDS BETWEEN KILLS]]}
IMAGES=${2:-6}
PAUSE=${3:-0.2}
WORK=${ONDEMAND_DISK:-/var/tmp}/failover.$$
RUN=$WORK/run
# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"

plan 7

KEEPER='' KILLER=''
finish() {
    [[ -z $KILLER ]] || kill "$KILLER" 2>/dev/null || true
    for ((i = 0; i < IMAGES; i++)); do umount "$WORK/mnt$i" 2>/dev/null || true; done
    [[ -z $KEEPER ]] || kill "$KEEPER" 2>/dev/null || true
}
trap finish EXIT

mkdir -p "$WORK/blobs" "$WORK/cache"
for ((i = 0; i < IMAGES; i++)); do
    mkdir -p "$WORK/tree$i" "$WORK/mnt$i"
    for size in 0 1 4095 4096 4097 65537 300000 3000001; do
        head -c "$size" /dev/urandom >"$WORK/tree$i/f$size"
    done
    (cd "$WORK/tree$i" && sha256sum ./*) >"$WORK/sums$i"
    case $((i % 2)) in
    0) mkfs.erofs --quiet "$WORK/blobs/image$i" "$WORK/tree$i" >"$WORK/mkfs.log" 2>&1 ;;
    1) mkfs.erofs --quiet --chunksize=65536 --blobdev="$WORK/blobs/blob$i" \
        "$WORK/blobs/image$i" "$WORK/tree$i" >"$WORK/mkfs.log" 2>&1 ;;
    esac || { cat "$WORK/mkfs.log"; exit 1; }
done

"$DAEMON" serve --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$RUN" --threads 3 \
    2>"$WORK/log" &
KEEPER=$!
rc=0; within ready "$KEEPER" || { rc=1; cat "$WORK/log"; }
result "$rc" "the keeper is ready"
((rc == 0)) || { echo "Bail out! no keeper"; exit 1; }

# Kills each worker once it serves.
kills() {
    local last='' pid
    while sleep "$PAUSE"; do
        pid=$(cat "$RUN/worker.pid" 2>/dev/null) || continue
        [[ -n $pid && $pid != "$last" ]] || continue
        kill -KILL "$pid" 2>/dev/null && echo "$pid" >>"$WORK/killed"
        last=$pid
    done
}
: >"$WORK/killed"
kills &
KILLER=$!

rc=0
for ((i = 0; i < IMAGES; i++)); do
    options=fsid=image$i
    ((i % 2 == 0)) || options+=,device=blob$i
    timeout "$DEADLINE" mount -t erofs none -o "$options" "$WORK/mnt$i" || { rc=1; break; }
done
result "$rc" "images are mounted while workers die"

# check TEXT: reads everything; the page cache is dropped first.
check() {
    local rc=0
    for ((i = 0; i < IMAGES; i++)); do
        echo 3 >/proc/sys/vm/drop_caches
        (cd "$WORK/mnt$i" && timeout $((3 * DEADLINE)) sha256sum --quiet -c "$WORK/sums$i") ||
            { rc=1; echo "# image $i"; }
    done
    result "$rc" "$1"
}
check "every byte is right while workers die"
check "and again, from the cache"

kill "$KILLER"; wait "$KILLER" 2>/dev/null || true
KILLER=''
count=$(wc -l <"$WORK/killed")
echo "# $count workers killed"
rc=0; within replaced "$(tail -n 1 "$WORK/killed")" || rc=1
stats=$("$DAEMON" stats --run-dir "$RUN" --json) || true
printf '%s\n' "# ${stats//$'\n'/$'\n'# }"
((count >= 3 && $(field worker_starts) >= count + 1 && $(field restores) >= count - 1 &&
    $(field source_errors) == 0 && $(field reads) > 0 && $(field opens) >= IMAGES)) || rc=1
result "$rc" "the counters survived the workers"

for ((i = 0; i < IMAGES; i++)); do umount "$WORK/mnt$i"; done
kill -TERM "$KEEPER"
rc=0; ended "$KEEPER" || rc=1
KEEPER=''
[[ ! -e $RUN/keeper.pid && ! -e $RUN/worker.pid && -s $RUN/stats.json ]] || rc=1
result "$rc" "SIGTERM ends both, and the pids are gone"

rc=0; within is_free || rc=1
result "$rc" "the device is free again"

((failed == 0)) || last_words
exit "$failed"
