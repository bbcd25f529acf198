#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A cache on a small file system: ondemandd culls what is idle, the longest unused first, and
# nothing else; and when nothing can be culled, what is not cached cannot be read, everything else
# goes on, and nobody spins.  KTAP; exit 4 = skip, also for a module that cannot cull.
#
# To be run as root in a virtual machine with a cachefiles module loaded:
#
#   scripts/vm/run --backend c -- user/ondemandd/tests/culling.sh user/target/debug/ondemandd
#
# It would have caught: limits that are not sent, culling that never begins or never ends, an image
# that is culled while it is mounted, the youngest going first, a graveyard that grows or leads out
# of the store, a fill that does not wait for culling, a reader that gets zeros or hangs when the
# cache is full, a keeper that walks the store again and again although nothing can go.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=${1:?usage: culling.sh ONDEMANDD}
WORK=${ONDEMAND_DISK:-/var/tmp}/culling.$$
RUN=$WORK/run
CACHE=$WORK/small/cache
IMAGES=14       # more than fit

# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"
for tool in mkfs.ext4 fallocate; do
    command -v "$tool" >/dev/null || skip "no $tool"
done
# A module with culling has no cache to look in yet.
refusal=$({ printf 'inuse x' >/dev/cachefiles; } 2>&1) || true
[[ $refusal != *"not supported"* ]] || skip "this module cannot cull"

plan 12
log_says() { grep -q "$1" "$WORK/log"; }

KEEPER=''
finish() {
    umount "$WORK/held" "$WORK/part" "$WORK/mnt" 2>/dev/null || true
    if [[ -n $KEEPER ]]; then
        kill "$KEEPER" 2>/dev/null || true
        ended "$KEEPER" || true
    fi
    umount "$WORK/small" 2>/dev/null || true
}
trap finish EXIT

mkdir -p "$WORK/blobs" "$WORK/small" "$WORK/held" "$WORK/part" "$WORK/mnt" "$WORK/outside"
truncate -s 96M "$WORK/small.img"
mkfs.ext4 -q -m 0 -b 4096 -N 16384 "$WORK/small.img"
mount -o loop "$WORK/small.img" "$WORK/small" || skip "no loop device"

# make_image NAME MIB: two files, `early` of 1 MiB and `late` of the rest, both incompressible.
make_image() {
    local tree=$WORK/tree.$1
    mkdir "$tree"
    head -c 1M /dev/urandom >"$tree/early"
    head -c "$(($2 - 1))M" /dev/urandom >"$tree/late"
    mkfs.erofs --quiet "$WORK/blobs/$1" "$tree" >"$WORK/mkfs.log" 2>&1 ||
        { cat "$WORK/mkfs.log"; exit 1; }
}
make_image held 5
make_image part 9
for ((i = 0; i < IMAGES; i++)); do make_image "i$i" 5; done

# attach NAME DIRECTORY
attach() { timeout "$DEADLINE" mount -t erofs none -o "fsid=$1" "$2"; }
# same NAME DIRECTORY FILE...: reads the files without the page cache.
same() {
    local name=$1 dir=$2 file
    shift 2
    echo 3 >/proc/sys/vm/drop_caches
    for file; do timeout "$DEADLINE" cmp "$dir/$file" "$WORK/tree.$name/$file" || return 1; done
}
# stored NAME: an object of that name has a file in the store.
stored() { compgen -G "$CACHE/cache/Ierofs,$1/@*/D$1" >/dev/null; }
gone() { ! compgen -G "$CACHE/cache/Ierofs,$1" >/dev/null; }
# One that goes while it is counted is no error.
idle_objects() { { find "$CACHE/cache" -type f ! -name Dheld ! -name Dpart 2>/dev/null || true; } | wc -l; }
available() { echo $(($(stat -f -c '%a * %S' "$WORK/small"))); }
# leave BYTES: takes all of the file system's space but so much.
ballast=0
leave() {
    ballast=$((ballast + 1))
    fallocate -l $(($(available) - $1)) "$WORK/small/ballast$ballast"
}
total=$(($(stat -f -c '%b * %S' "$WORK/small")))

SERVE=("$DAEMON" serve --cache "$CACHE" --source "$WORK/blobs" --run-dir "$RUN" --tag culling)
rc=0 status=0
"${SERVE[@]}" --device "$WORK/none" --bcull 8 2>"$WORK/refused" || status=$?
((status == 1)) || rc=1
grep -q -e '--bcull 8 must be less than --brun 7' "$WORK/refused" || rc=1
result "$rc" "limits that contradict one another are refused, with the reason"

# A grave that was left behind, with a way out of the store.
echo kept >"$WORK/outside/kept"
mkdir -p "$CACHE/graveyard/0123456789abcdef/@00/deeper"
echo x >"$CACHE/graveyard/0123456789abcdef/@00/Dx"
ln -s "$WORK/outside" "$CACHE/graveyard/0123456789abcdef/@00/deeper/way-out"
ln -s "$WORK/outside" "$CACHE/graveyard/way-out"

"${SERVE[@]}" --log info,ondemandd::cull=debug --brun 40 --bcull 30 --bstop 20 2>"$WORK/log" &
KEEPER=$!
rc=0; within ready "$KEEPER" || rc=1
result "$rc" "the keeper is ready"
((rc == 0)) || { echo "Bail out! no keeper"; cat "$WORK/log"; exit 1; }

empty() { [[ -z $(ls -A "$1") ]]; }
rc=0; within empty "$CACHE/graveyard" || rc=1
[[ -s $WORK/outside/kept ]] || rc=1
within log_says "graveyard emptied" || rc=1
result "$rc" "the graveyard is emptied, and nothing outside of it"

# The oldest of all, named in the store by its first unmount, and mounted again.
rc=0
attach held "$WORK/held" && same held "$WORK/held" early late || rc=1
umount "$WORK/held" || rc=1
within stored held || rc=1
attach held "$WORK/held" || rc=1
last=''
for ((i = 0; i < IMAGES && rc == 0; i++)); do
    attach "i$i" "$WORK/mnt" && same "i$i" "$WORK/mnt" early late || rc=1
    umount "$WORK/mnt" || rc=1
    within stored "i$i" || rc=1
    last=i$i
    ! log_says " culled objects=" || break
done
echo "# $last is the last image read"
# This one makes the kernel look at its space, if the last one did not.
attach part "$WORK/part" && same part "$WORK/part" early || rc=1
within log_says " culled objects=" || rc=1
result "$rc" "culling begins when the cache is too full"

rc=0
# With its only object the volume has gone, too.
within gone i0 || { rc=1; echo "# i0 is still there"; }
stored "$last" || { rc=1; echo "# $last has gone"; }
enough() { (($(available) * 100 >= total * 30)); }
within enough || rc=1
(($(field culled_objects) >= 1 && $(field culled_bytes) >= 5 << 20)) || rc=1
echo "# $(field culled_objects) objects of $(field culled_bytes) bytes culled, $(idle_objects) left"
result "$rc" "the longest unused has gone, the last one stays, and the counters know"

rc=0; stored held && same held "$WORK/held" early late || rc=1
result "$rc" "a mounted image is not culled, however old"

# late OFFSET: reads one page of `late`, and what readahead takes, with status 0, 1, or 124 if it
# takes too long.
late() {
    timeout "$DEADLINE" tail -c "+$(($1 + 1))" "$WORK/part/late" 2>/dev/null | head -c 4096 >"$WORK/page"
    local status=${PIPESTATUS[0]}
    # `tail` ends early when `head` has what it wants.
    cmp -s "$WORK/page" <(tail -c "+$(($1 + 1))" "$WORK/tree.part/late" | head -c 4096) && return 0
    ((status == 124)) || status=1
    # What was read before the error is data and no zeros.
    cmp -s -n "$(stat -c %s "$WORK/page")" "$WORK/page" \
        <(tail -c "+$(($1 + 1))" "$WORK/tree.part/late") || status=2
    return "$status"
}

# Below the stop mark, with something left to cull: the reader waits and sees no error.
rc=0
waited=$(field fills_that_waited)
leave $((total * 12 / 100))
late 0 || rc=1
(($(field fills_that_waited) > waited && $(field fills_without_space) == 0)) || rc=1
result "$rc" "a fill that finds the cache full waits for culling"

# All that is idle goes.  A read makes the kernel look at its space.
rc=1 status=0
for ((i = 1; i <= IMAGES; i++)); do
    leave $((total * 5 / 100)) || true
    began=$SECONDS status=0
    late $((i * 256 * 1024)) || status=$?
    if ((status)); then
        echo "# read $i: status $status after $((SECONDS - began)) s, $(idle_objects) idle objects"
        if (($(idle_objects) == 0)); then
            rc=0
            break
        fi
    fi
done
((status == 1 && $(field fills_without_space) >= 1)) || rc=1
result "$rc" "in a full cache, what is not cached is an error and no zeros"

rc=0
same held "$WORK/held" early late || rc=1
same part "$WORK/part" early || rc=1
(($(field source_errors) == 0 && $(field worker_starts) == 1)) || rc=1
result "$rc" "what is cached is read on"

# Nothing can be culled, and the kernel goes on asking.  Processor time is measured, so time passes.
rc=0
within log_says "nothing in it can be culled" || rc=1
ticks() { sed 's/.*) //' "/proc/$KEEPER/stat" | cut -d' ' -f12-13 | tr ' ' '+'; }
passes() { grep -c "nothing to cull" "$WORK/log" || true; }
idle() {
    local used passed began=$SECONDS took most=2 pauses=1
    used=$(($(ticks))) passed=$(passes)
    sleep 6
    used=$(($(ticks) - used)) passed=$(($(passes) - passed)) took=$((SECONDS - began))
    # The pauses are 1, 2, 4 ... s; one has begun before, and one has not ended.
    until ((pauses > took)); do pauses=$((2 * pauses + 1)) most=$((most + 1)); done
    echo "# $used ticks of $(getconf CLK_TCK) a second and $passed passes (of $most) in $took s"
    # An emulated machine counts what its host does elsewhere, too; a process that spins uses all of a
    # processor, whenever it is looked at.
    ((used <= took * $(getconf CLK_TCK) / 3 && passed <= most))
}
within idle || rc=1
(($(grep -c "nothing in it can be culled" "$WORK/log") == 1)) || rc=1
result "$rc" "with nothing to cull the keeper says so once and does not spin"

rm "$WORK"/small/ballast*
rc=0
late 0 || rc=1
same part "$WORK/part" early late || rc=1
result "$rc" "with space again the same read succeeds, without a remount"

umount "$WORK/held" "$WORK/part"
kill -TERM "$KEEPER"
rc=0; ended "$KEEPER" || rc=1
KEEPER=''
within umount "$WORK/small" || rc=1
result "$rc" "the keeper ends, and the cache's file system is free"

((failed == 0)) || last_words
exit "$failed"
