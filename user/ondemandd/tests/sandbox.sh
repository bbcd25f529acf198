#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The worker of ondemandd serves without being root, and so does its successor.  KTAP; exit 4 = skip.
#
# To be run as root in a virtual machine with a cachefiles module loaded:
#
#   scripts/vm/run --append lsm=landlock -- user/ondemandd/tests/sandbox.sh user/target/debug/ondemandd required
#
# With best-effort instead of required: whatever the kernel has of Landlock and seccomp.
#
# It would have caught: a module or a kernel that lets only root answer, or only the process that opened the
# device; a sandbox that keeps the worker from its sources; a source that nobody but root can read, which is
# found out at the first mount.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=${1:?usage: sandbox.sh ONDEMANDD [best-effort|required]}
SANDBOX=${2:-best-effort}
WORK=${ONDEMAND_DISK:-/var/tmp}/sandbox.$$
RUN=$WORK/run
# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"

plan 6

KEEPER=''
finish() {
    umount "$WORK/mnt" 2>/dev/null || true
    [[ -z $KEEPER ]] || kill "$KEEPER" 2>/dev/null || true
}
trap finish EXIT

mkdir -p "$WORK/blobs" "$WORK/cache" "$WORK/tree" "$WORK/mnt"
head -c 2000000 /dev/urandom >"$WORK/tree/early"
head -c 2000000 /dev/urandom >"$WORK/tree/late"
mkfs.erofs --quiet "$WORK/blobs/image" "$WORK/tree" >"$WORK/mkfs.log" 2>&1
chmod 0644 "$WORK/blobs/image"
chmod 0700 "$WORK" # the way there does not matter

# serve FLAG...
serve() {
    "$DAEMON" serve --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$RUN" --tag sandbox \
        --sandbox "$SANDBOX" "$@" \
        2>>"$WORK/log" &
    KEEPER=$!
    within ready "$KEEPER"
}
# stop: the keeper ends well.
stop() {
    local rc=0
    kill -TERM "$KEEPER" && ended "$KEEPER" || rc=1
    KEEPER=''
    return "$rc"
}
# status FIELD: of the worker's process, the first number.
status() { sed -n "s/^$1:[[:space:]]*\([0-9a-f]*\).*/\1/p" "/proc/$(cat "$RUN/worker.pid")/status"; }
# confined UID: the worker is this user, and has nothing that it should not have.
confined() {
    local set
    [[ $(status Uid) == "$1" && $(status NoNewPrivs) == 1 ]] || return 1
    for set in CapInh CapPrm CapEff CapBnd CapAmb; do
        [[ $(status $set) =~ ^0+$ ]] || return 1
    done
    # A kernel without seccomp says nothing.
    [[ -z $(status Seccomp) || $(status Seccomp) == 2 ]]
}

chmod 0700 "$WORK/blobs"
rc=0
"$DAEMON" serve --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$RUN" --user 65534:65534 \
    2>"$WORK/refused" && rc=1
grep -q "cannot be entered by the worker's user" "$WORK/refused" || rc=1
chmod 0755 "$WORK/blobs"
result "$rc" "a source that the worker could not read is refused at the start"

rc=0
serve --user 65534:65534 || rc=1
confined 65534 || { rc=1; sed 's/^/# /' "/proc/$(cat "$RUN/worker.pid")/status"; }
grep "does without" "$WORK/log" | sed 's/^/# /' || true
result "$rc" "the worker is nobody, without capabilities"

rc=0
timeout "$DEADLINE" mount -t erofs none -o fsid=image "$WORK/mnt" || rc=1
timeout "$DEADLINE" cmp "$WORK/mnt/early" "$WORK/tree/early" || rc=1
(($(field kernel_errors) == 0)) || rc=1
result "$rc" "it serves"

rc=0
old=$(cat "$RUN/worker.pid")
kill -KILL "$old" || rc=1
within replaced "$old" || rc=1
confined 65534 || rc=1
echo 3 >/proc/sys/vm/drop_caches
timeout "$DEADLINE" cmp "$WORK/mnt/late" "$WORK/tree/late" || rc=1
(($(field restores) == 1)) || rc=1
result "$rc" "its successor restores, and serves as well"

umount "$WORK/mnt"
rc=0; stop || rc=1
result "$rc" "the keeper ends a worker that is another user"

rc=0
serve --user 0:0 || rc=1
confined 0 || rc=1
timeout "$DEADLINE" mount -t erofs none -o fsid=image "$WORK/mnt" || rc=1
timeout "$DEADLINE" cmp "$WORK/mnt/late" "$WORK/tree/late" || rc=1
umount "$WORK/mnt" || rc=1
stop || rc=1
result "$rc" "a worker that stays root has no capability either"

((failed == 0)) || last_words
exit "$failed"
