#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Images that are replaced under their names, with others of the same size: while they are unmounted, mounted, or
# being read; over deaths of the worker and ends of the daemon; and a record of versions, a manifest or a stored
# file that is lost or spoiled.  Every byte that a reader gets is of the version that was mounted.  KTAP; exit 4 = skip.
#
# To be run as root in a virtual machine with a cachefiles module loaded:
#
#   scripts/vm/run --backend c -- user/ondemandd/tests/identity.sh user/target/debug/ondemandd
#
# It would have caught: data of two versions in one image, after a change in place, after a new mount, and after a
# restart of the service; a mount that fails since the image has changed; a change that fills the log; a cache that
# is fetched again without need, or not although nobody knows what is in it; verification that ends with its manifest.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=${1:?usage: identity.sh ONDEMANDD}
WORK=${ONDEMAND_DISK:-/var/tmp}/identity.$$
RUN=$WORK/run
CACHE=$WORK/cache
BLOBS=$WORK/blobs
# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"

plan 17

KEEPER=''
finish() {
    umount "$WORK/mnt" 2>/dev/null || true
    [[ -z $KEEPER ]] || kill "$KEEPER" 2>/dev/null || true
}
trap finish EXIT
mkdir -p "$BLOBS" "$CACHE" "$WORK/mnt"
: >"$WORK/log"

# --- versions of an image: the same names and sizes, other bytes

VERSIONS=6
for ((v = 1; v <= VERSIONS; v++)); do
    mkdir "$WORK/tree$v"
    for file in a b c; do head -c 1M /dev/urandom >"$WORK/tree$v/$file"; done
    mkfs.erofs --quiet -T0 -U 00000000-0000-0000-0000-000000000001 "$WORK/image$v" "$WORK/tree$v" \
        >"$WORK/mkfs.log" 2>&1 || { cat "$WORK/mkfs.log"; exit 1; }
done
rc=0
for ((v = 2; v <= VERSIONS; v++)); do
    [[ $(stat -c %s "$WORK/image$v") == $(stat -c %s "$WORK/image1") ]] || rc=1
done
result "$rc" "all versions have the same size"

# publish VERSION: as a whole, under the image's name.
publish() { cp "$WORK/image$1" "$BLOBS/.new" && mv "$BLOBS/.new" "$BLOBS/image"; }
serve() {
    "$DAEMON" serve --cache "$CACHE" --source "$BLOBS" --run-dir "$RUN" 2>>"$WORK/log" &
    KEEPER=$!
    within ready "$KEEPER"
}
stop() {
    kill -TERM "$KEEPER"
    local status=0
    ended "$KEEPER" || status=$?
    KEEPER=''
    return "$status"
}
attach() { timeout "$DEADLINE" mount -t erofs none -o fsid=image "$WORK/mnt"; }
detach() { umount "$WORK/mnt"; }
# same VERSION FILE...: they are read without the page cache, and are right.
same() {
    local version=$1 file
    shift
    echo 3 >/proc/sys/vm/drop_caches
    for file; do timeout "$DEADLINE" cmp "$WORK/mnt/$file" "$WORK/tree$version/$file" || return 1; done
}
# none FILE: it cannot be read, and nothing of it comes.
none() {
    echo 3 >/proc/sys/vm/drop_caches
    ! timeout "$DEADLINE" cat "$WORK/mnt/$1" >"$WORK/got" 2>"$WORK/none.log" || return 1
    grep -q 'Input/output error' "$WORK/none.log" || { sed 's/^/# /' "$WORK/none.log"; return 1; }
    [[ ! -s $WORK/got ]] || { echo "# $(stat -c %s "$WORK/got") bytes came"; return 1; }
}
told() { grep -c 'has changed while it is in use' "$WORK/log" || true; }

publish 1
rc=0; serve || rc=1
result "$rc" "the keeper is ready"
((rc == 0)) || { echo "Bail out! no keeper"; last_words; exit 1; }

# --- while it is unmounted

rc=0
attach && same 1 a b && detach || rc=1
publish 2
attach && same 2 a b c || rc=1
result "$rc" "a new mount has the new version, and nothing of the old one"

# --- while it is mounted

publish 3
rc=0
same 2 a b c || rc=1
(($(told) == 0)) || rc=1
result "$rc" "what is cached is read on"
detach
attach && same 3 a || rc=1
publish 4
rc=0
before=$(told)
same 3 a && none b && none c && none b || rc=1
(($(told) == before + 1)) || { rc=1; echo "# told $(($(told) - before)) times"; }
"$DAEMON" status --run-dir "$RUN" >"$WORK/status" || rc=1
grep -q 'has changed: was .*, is ' "$WORK/status" || { rc=1; sed 's/^/# /' "$WORK/status"; }
result "$rc" "what is not cached cannot be read, and that is told once, and in the status"

worker=$(cat "$RUN/worker.pid")
kill -KILL "$worker"
rc=0
within replaced "$worker" || rc=1
for _ in 1 2 3 4 5 6; do none c || rc=1; done
same 3 a || rc=1
(($(told) <= before + 2)) || { rc=1; echo "# told $(($(told) - before)) times"; }
result "$rc" "nor by the next worker, however often it is tried"

rc=0
detach && attach && same 4 a b c || rc=1
"$DAEMON" status --run-dir "$RUN" >"$WORK/status" || rc=1
! grep -q 'has changed' "$WORK/status" || rc=1
result "$rc" "and a new mount has the new version"

# --- in place

detach
rc=0
publish 5
attach && same 5 a || rc=1
dd if="$WORK/image6" of="$BLOBS/image" bs=1M conv=notrunc status=none
none b && same 5 a || rc=1
detach
attach && same 6 a b c || rc=1
detach
result "$rc" "a change in place is not mixed into what is mounted"

# --- over an end of the daemon

rc=0
stop && within is_free || rc=1
serve || rc=1
attach && same 6 a b c || rc=1
fetched=$(field bytes)
((fetched == 0)) || { rc=1; echo "# $fetched bytes were fetched"; }
detach
stop && within is_free || rc=1
result "$rc" "what has not changed is not fetched again by the next daemon"
publish 1
rc=0
serve || rc=1
attach && same 1 a b c || rc=1
detach
result "$rc" "what has changed meanwhile is"

# --- a record that is lost, or a copy

rc=0
for way in lost copied; do
    stop && within is_free || rc=1
    case $way in
    lost) rm "$CACHE/ondemandd.versions" ;;
    copied) cp "$CACHE/ondemandd.versions" "$WORK/copy" && mv "$WORK/copy" "$CACHE/ondemandd.versions" ;;
    esac
    before=$(grep -c 'versions that nobody knows' "$WORK/log" || true)
    publish 2
    serve || rc=1
    (($(grep -c 'versions that nobody knows' "$WORK/log") == before + 1)) || rc=1
    attach && same 2 a b c || rc=1
    detach
    # It has data now that another record knows nothing of.
done
result "$rc" "without a record that can be believed, all is fetched again, and the log says so"

# --- evict

stored() { find "$CACHE/cache" -type f -name Dimage; }
rc=0
attach && same 2 a || rc=1
! "$DAEMON" evict --run-dir "$RUN" image >"$WORK/evict" 2>&1 || rc=1
grep -q 'in use' "$WORK/evict" || { rc=1; sed 's/^/# /' "$WORK/evict"; }
same 2 a || rc=1
detach
evicts() { "$DAEMON" evict --run-dir "$RUN" image >"$WORK/evict" 2>&1; }
within evicts || { rc=1; sed 's/^/# /' "$WORK/evict"; }
[[ -z $(stored) ]] || rc=1
! evicts || rc=1
grep -q 'nothing is stored' "$WORK/evict" || rc=1
before=$(field bytes)
attach && same 2 a b c || rc=1
(($(field bytes) > before)) || rc=1
detach
result "$rc" "an image is evicted, but not while it is in use"

# --- manifest and scrub

rc=0 status=0
"$DAEMON" scrub --run-dir "$RUN" image >"$WORK/scrub" 2>&1 || status=$?
((status == 1)) || rc=1
grep -q 'no manifest' "$WORK/scrub" || { rc=1; sed 's/^/# /' "$WORK/scrub"; }
result "$rc" "without a manifest there is nothing to scrub by"
"$DAEMON" manifest "$BLOBS/image" >"$WORK/manifest.log" 2>&1
rc=0
attach && same 2 a b c || rc=1
"$DAEMON" scrub --run-dir "$RUN" image >"$WORK/scrub" 2>&1 || { rc=1; sed 's/^/# /' "$WORK/scrub"; }
touch "$BLOBS/image"
chmod 444 "$BLOBS/image"
detach
before=$(field bytes)
attach && same 2 a b c || rc=1
(($(field bytes) == before)) || { rc=1; echo "# fetched again"; }
detach
result "$rc" "with a manifest, that alone is the version"

rc=0
named() { [[ -n $(stored) ]]; }
within named || rc=1
# A byte in the middle, where file data is.
printf 'x' | dd of="$(stored)" bs=1 seek=1600000 conv=notrunc status=none
sync
status=0
"$DAEMON" scrub --run-dir "$RUN" image >"$WORK/scrub" 2>&1 || status=$?
((status == 3)) || { rc=1; echo "# status $status"; sed 's/^/# /' "$WORK/scrub"; }
"$DAEMON" scrub --run-dir "$RUN" image >"$WORK/scrub" 2>&1 || { rc=1; sed 's/^/# /' "$WORK/scrub"; }
before=$(field bytes)
attach && same 2 a b c || rc=1
fetched=$(($(field bytes) - before))
# The kernel's own module does not use a file again that was taken away from it.
allowed=$((1 << 20))
[[ ${ONDEMAND_BACKEND:-rust} == rust ]] || allowed=$((4 << 20))
((fetched > 0 && fetched <= allowed)) || { rc=1; echo "# $fetched bytes were fetched"; }
detach
result "$rc" "what is spoiled in the store is dropped, and the rest stays"

mv "$BLOBS/image.manifest" "$WORK/"
rc=0
! attach 2>"$WORK/mount.log" || { rc=1; detach; }
grep -q 'but there was one' "$WORK/log" || rc=1
mv "$WORK/image.manifest" "$BLOBS/"
attach && same 2 a b c || rc=1
detach
result "$rc" "a manifest that was there is missed"

rc=0; stop || rc=1
result "$rc" "an orderly end"

((failed == 0)) || last_words
exit "$failed"
