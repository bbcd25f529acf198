#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What ondemandd does when something is wrong: an unknown image, a source that shrinks, a second
# keeper, a worker that is stopped, a keeper that is killed.  KTAP; exit 4 = skip.
#
# To be run as root in a virtual machine with a cachefiles module loaded:
#
#   scripts/vm/run --backend c -- user/ondemandd/tests/edges.sh user/target/debug/ondemandd
#
# It would have caught: a mount that hangs for want of an answer, zeros read where data could not
# be had, a pid file that names the wrong process, a worker that ends with its keeper, an
# upgrade that leaves nobody to serve.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=${1:?usage: edges.sh ONDEMANDD}
WORK=${ONDEMAND_DISK:-/var/tmp}/edges.$$
RUN=$WORK/run
# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"

plan 13

gone() { [[ ! -d /proc/$1 || $(sed 's/.*) //' "/proc/$1/stat") == Z* ]]; }

KEEPER='' WORKER=''
finish() {
    umount "$WORK/mnt" "$WORK/loose" 2>/dev/null || true
    [[ -z $KEEPER ]] || kill "$KEEPER" 2>/dev/null || true
    [[ -z $WORKER ]] || kill "$WORKER" 2>/dev/null || true
}
trap finish EXIT

mkdir -p "$WORK/blobs" "$WORK/cache" "$WORK/tree" "$WORK/mnt" "$WORK/blobs/directory"
head -c 2000000 /dev/urandom >"$WORK/tree/early"
head -c 2000000 /dev/urandom >"$WORK/tree/late"
mkfs.erofs --quiet "$WORK/blobs/image" "$WORK/tree" >"$WORK/mkfs.log" 2>&1
cp "$WORK/blobs/image" "$WORK/whole"

# The keeper runs from a copy, which a new version can replace.
serve() {
    cp -f "$DAEMON" "$WORK/ondemandd"
    "$WORK/ondemandd" serve --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$RUN" --tag edges \
        2>>"$WORK/log" &
    KEEPER=$!
    within ready "$KEEPER"
}
serve || { echo "Bail out! no keeper"; cat "$WORK/log"; exit 1; }

rc=0
for id in none directory ../whole; do
    # With a domain, the id is the cookie key alone, and may hold a slash.
    status=0
    timeout "$DEADLINE" mount -t erofs none -o "domain_id=d,fsid=$id" "$WORK/mnt" 2>/dev/null ||
        status=$?
    ((status != 0 && status != 124)) || rc=1
done
[[ $(field refused) -ge 3 ]] || rc=1
result "$rc" "images that are none are refused at once"

rc=0
"$DAEMON" serve --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$RUN" 2>"$WORK/second" && rc=1
grep -q "another keeper uses" "$WORK/second" || rc=1
"$DAEMON" serve --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$WORK/other" \
    2>"$WORK/second" && rc=1
grep -q "cannot open /dev/cachefiles" "$WORK/second" || rc=1
result "$rc" "a second keeper says why it cannot run"

timeout "$DEADLINE" mount -t erofs none -o fsid=image "$WORK/mnt"
rc=0; cmp -s "$WORK/mnt/early" "$WORK/tree/early" || rc=1
result "$rc" "an image is mounted and read"

truncate -s 100000 "$WORK/blobs/image"
rc=0 status=0
timeout "$DEADLINE" cat "$WORK/mnt/late" >"$WORK/copy" 2>/dev/null || status=$?
((status != 0 && status != 124)) || rc=1
# What was read before the error, if anything, is data and no zeros.
cmp -s -n "$(stat -c %s "$WORK/copy")" "$WORK/copy" "$WORK/tree/late" || rc=1
[[ $(field source_errors) -ge 1 ]] || rc=1
result "$rc" "data that cannot be had is an error, and no zeros"

# Whether the bytes are the same nobody knows: it is another version.
cat "$WORK/whole" >"$WORK/blobs/image"
umount "$WORK/mnt"
rc=0
timeout "$DEADLINE" mount -t erofs none -o fsid=image "$WORK/mnt" || rc=1
echo 3 >/proc/sys/vm/drop_caches
timeout "$DEADLINE" cmp "$WORK/mnt/late" "$WORK/tree/late" || rc=1
result "$rc" "it can be had with a new mount once the source has it again"

old=$(cat "$RUN/worker.pid")
kill -TERM "$old"
rc=0; within gone "$old" || rc=1
within replaced "$old" || rc=1
new=$(cat "$RUN/worker.pid" || true)
[[ -n $new && $new != "$old" && -d /proc/$new ]] || rc=1
result "$rc" "a worker that ends in good order is replaced too"

# A new version that cannot run takes the program's place.
printf '#!/bin/sh\nexit 1\n' >"$WORK/broken"
chmod +x "$WORK/broken"
mv "$WORK/broken" "$WORK/ondemandd"
old=$new
kill -KILL "$old"
rc=0; within gone "$old" || rc=1
within replaced "$old" || rc=1
new=$(cat "$RUN/worker.pid" || true)
[[ -n $new && $new != "$old" && $(cat "/proc/$new/comm") == ondemandd ]] || rc=1
result "$rc" "a broken new version is not the end"

# A stopped worker takes no SIGTERM; the keeper's second signal does not wait.
kill -STOP "$new"
kill -INT "$KEEPER"
kill -TERM "$KEEPER"
rc=0; ended "$KEEPER" || rc=1
within gone "$new" || rc=1
KEEPER=''
result "$rc" "a second signal ends a worker that does not listen"
umount "$WORK/mnt"

serve || true
timeout "$DEADLINE" mount -t erofs none -o fsid=image "$WORK/mnt" || true
WORKER=$(cat "$RUN/worker.pid")
kill -KILL "$KEEPER"
wait "$KEEPER" 2>/dev/null || true
KEEPER=''
echo 3 >/proc/sys/vm/drop_caches
rc=0
timeout "$DEADLINE" cmp "$WORK/mnt/early" "$WORK/tree/early" || rc=1
within grep -q "the keeper has ended" "$WORK/log" || rc=1
result "$rc" "the worker outlives its keeper"

umount "$WORK/mnt"
kill -TERM "$WORKER"
rc=0; within gone "$WORKER" || rc=1
WORKER=''
within is_free || rc=1
serve || rc=1
result "$rc" "and a new keeper can start when it has ended"
kill -TERM "$KEEPER"
wait "$KEEPER" || true
KEEPER=''

# A keeper that gets the device from this script, where it is 9.
take_over() {
    "$DAEMON" serve --take-over --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$RUN" \
        <&9 2>>"$WORK/log" 9>&- &
    KEEPER=$!
    within ready "$KEEPER"
}
# This script binds the cache, and holds it while no daemon is there at all.
exec 9<>/dev/cachefiles
for command in "dir $WORK/cache" "tag edges" "bind ondemand"; do
    printf '%s' "$command" >&9
done
rc=0
take_over || rc=1
cp "$WORK/whole" "$WORK/blobs/another" # of which nothing is cached
timeout "$DEADLINE" mount -t erofs none -o fsid=another "$WORK/mnt" 9>&- || rc=1
WORKER=$(cat "$RUN/worker.pid" || true)
kill -KILL "$KEEPER" "$WORKER" || rc=1
wait "$KEEPER" 2>/dev/null || true
within gone "$WORKER" || rc=1
KEEPER='' WORKER=''
cmp "$WORK/mnt/late" "$WORK/tree/late" 9>&- &
READER=$!
take_over || rc=1
ended "$READER" || rc=1
result "$rc" "a reader waits while keeper and worker are dead and another holds the device"

exec 9>&-
rc=0
"$DAEMON" serve --take-over --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$WORK/other" \
    </dev/null 2>"$WORK/second" && rc=1
grep -q "standard input is not the device" "$WORK/second" || rc=1
umount "$WORK/mnt"
result "$rc" "what is no device cannot be taken over"

# A file system that may map a range before its data is written.
rc=0
kill -TERM "$KEEPER"
ended "$KEEPER" || rc=1
KEEPER=''
within is_free || rc=1
truncate -s 64M "$WORK/loose.img"
mkfs.ext4 -q "$WORK/loose.img"
mkdir "$WORK/loose"
mount -o loop,data=writeback "$WORK/loose.img" "$WORK/loose"
"$DAEMON" serve --cache "$WORK/loose/cache" --source "$WORK/blobs" --run-dir "$RUN" --fill=buffered \
    2>"$WORK/second" && rc=1
grep -q "cannot start a cache" "$WORK/second" || rc=1
"$DAEMON" serve --cache "$WORK/loose/cache" --source "$WORK/blobs" --run-dir "$RUN" 2>"$WORK/second" &
KEEPER=$!
within ready "$KEEPER" || rc=1
grep -q 'fill=Direct' "$WORK/second" || rc=1
timeout "$DEADLINE" mount -t erofs none -o fsid=image "$WORK/mnt" || rc=1
timeout "$DEADLINE" cmp "$WORK/mnt/early" "$WORK/tree/early" || rc=1
umount "$WORK/mnt"
kill -TERM "$KEEPER"
ended "$KEEPER" || rc=1
KEEPER=''
((rc == 0)) || cat "$WORK/second"
result "$rc" "where memory cannot be trusted, data goes to the disk at once, unless that was not asked for"

((failed == 0)) || last_words
exit "$failed"
