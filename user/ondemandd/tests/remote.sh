#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Mounts EROFS images from a real nginx and from a real S3 server (moto), and reads every byte
# while these are killed, stopped, slow, or have another blob than before.  KTAP; exit 4 = skip.
#
# To be run as root in a virtual machine with a cachefiles module loaded:
#
#   scripts/vm/run -- user/ondemandd/tests/remote.sh ONDEMANDD NGINX PYTHON
#
# PYTHON is one that has moto.  It would have caught: a body that is cut short and taken for the
# whole, a retry that gives up while the server restarts, data of two versions in one image, a
# slow server that holds up images from elsewhere, a request that waits for ever.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=${1:?usage: remote.sh ONDEMANDD NGINX PYTHON}
NGINX=${2:?usage: remote.sh ONDEMANDD NGINX PYTHON}
PYTHON=${3:?usage: remote.sh ONDEMANDD NGINX PYTHON}
WORK=${ONDEMAND_DISK:-/var/tmp}/remote.$$
RUN=$WORK/run
# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"
# shellcheck source-path=SCRIPTDIR source=servers.bash
. "$(dirname "$0")/servers.bash"
# Python takes its time in an emulated machine.
DEADLINE=$(seconds 180)
# Seconds for one try of a request, and for all of it: programs of this machine answer.
TRY=$(seconds 5) TOTAL=$(seconds 30)
[[ -x $NGINX ]] || skip "no nginx"
[[ -x $PYTHON ]] || skip "no Python with moto"

plan 18

KEEPER='' KILLER=''
IMAGES=(killed slow gone changed ahead scattered polite moto)
finish() {
    [[ -z $KILLER ]] || kill "$KILLER" 2>/dev/null || true
    for image in "${IMAGES[@]}" here; do umount "$WORK/mnt-$image" 2>/dev/null || true; done
    [[ -z $KEEPER ]] || kill "$KEEPER" 2>/dev/null || true
    s3_stop
    nginx_stop
}
trap finish EXIT

# --- what is served

mkdir -p "$WORK/cache" "$WORK/blobs" "$WORK/web"
image() {
    local tree=$WORK/tree-$1 size
    mkdir -p "$tree" "$WORK/mnt-$1"
    for size in 0 1 4095 65537 300000 3000001; do
        head -c "$size" /dev/urandom >"$tree/f$size"
    done
    (cd "$tree" && sha256sum ./*) >"$WORK/sums-$1"
    mkfs.erofs --quiet "$2/$1" "$tree" >"$WORK/mkfs.log" 2>&1 || { cat "$WORK/mkfs.log"; exit 1; }
    rm -r "$tree"
}
for name in killed slow gone changed ahead scattered polite; do image "$name" "$WORK/web"; done
image moto "$WORK"
image here "$WORK/blobs"
"$DAEMON" manifest "$WORK/web/killed" >"$WORK/manifest.log" 2>&1 || { cat "$WORK/manifest.log"; exit 1; }

# Of what is limited nginx sends the bytes of a second at once.  256 KiB of `killed`, which is what
# is asked for at a time, take a second.  On a slow machine both take longer, as the pauses between kills
# do: `slow` than another image, and `killed` than several of these pauses.
nginx_config "location = /slow { limit_rate $((102400 * 5 / TRY)); }
    location = /killed { limit_rate $((131072 * 5 / TRY)); }"
ip link set lo up
nginx_start
s3_start

rc=0
within listening 8080 || { rc=1; sed 's/^/# /' "$WORK/nginx.log"; }
result "$rc" "nginx serves"
rc=0
within listening 5000 || rc=1
s3_put "$WORK/moto" some/where/moto || { rc=1; tail -n 20 "$WORK/moto.log" | sed 's/^/# /'; }
result "$rc" "the S3 server has the image"

# --- the daemon

cat >"$WORK/ondemandd.toml" <<CONF
cache = "$WORK/cache"
source = "$WORK/blobs"
run-dir = "$RUN"
threads = 2
fetch = 262144

[sources.web]
kind = "http"
url = "http://127.0.0.1:8080"
[sources.web.requests]
try-ms = ${TRY}000
total-ms = ${TOTAL}000
retries = 20

[sources.bucket]
kind = "s3"
bucket = "images"
endpoint = "http://127.0.0.1:5000"
prefix = "some/where"
access-key-id = { env = "TEST_KEY" }
secret-access-key = { env = "TEST_KEY" }
[sources.bucket.requests]
try-ms = ${TRY}000
total-ms = ${TOTAL}000
retries = 20
CONF
TEST_KEY=opensesame "$DAEMON" serve --config "$WORK/ondemandd.toml" 2>"$WORK/log" &
KEEPER=$!
rc=0; within ready "$KEEPER" || { rc=1; last_words; }
result "$rc" "the daemon serves three sources"
((rc == 0)) || { echo "Bail out! no daemon"; exit 1; }

mounts() { timeout "$DEADLINE" "$DAEMON" mount "$1" "$WORK/mnt-${1##*/}"; }
# reads IMAGE: reads everything, and compares; nothing comes from the page cache.
reads() {
    echo 3 >/proc/sys/vm/drop_caches
    (cd "$WORK/mnt-$1" && timeout $((3 * DEADLINE)) sha256sum --quiet -c "$WORK/sums-$1")
}
# block IMAGE: the largest file's last bytes, or an error.
block() { timeout "$DEADLINE" tail -c 100 "$WORK/mnt-$1/f3000001" >/dev/null 2>"$WORK/tail.log"; }

rc=0
for image in web/{killed,slow,gone,changed,ahead,scattered,polite} bucket/moto here; do mounts "$image" || rc=1; done
result "$rc" "images of nginx, S3 and a directory are mounted"

# --- a reader who reads on and on, and one who does not

# A block of each half MiB, backwards.
before=$(field ahead_requests)
for n in 5 4 3 2 1; do
    timeout "$DEADLINE" dd if="$WORK/mnt-scattered/f3000001" of=/dev/null bs=4096 skip=$((n * 128)) count=1 \
        status=none
done
rc=0; (($(field ahead_requests) == before)) || rc=1
result "$rc" "scattered reads cause no reading ahead"
rc=0; reads ahead || rc=1
fetched=$(field ahead_bytes)
echo "# $fetched bytes were read ahead with $(field ahead_requests) requests"
((fetched > 0 && fetched < $(field bytes) && $(field ahead_errors) == 0)) || rc=1
result "$rc" "a sequential read over nginx is read ahead, and every byte is right"

# --- a server that dies, again and again

# Ends by itself, for it must not be cut short between stop and start.  No request ends within the
# short pauses, whoever has begun it; each can within the long ones.
kills() {
    local pause=0.3 long
    long=$(seconds 2).5
    until [[ -e $WORK/enough ]]; do
        sleep "$pause"
        if [[ $pause == 0.3 ]]; then pause=$long; else pause=0.3; fi
        nginx_stop
        echo killed >>"$WORK/kills"
        nginx_start || true
    done
    nginx_stop
    nginx_start
}
: >"$WORK/kills"
kills &
KILLER=$!
rc=0
within test -s "$WORK/kills" || rc=1
before=$(field retries)
reads killed || rc=1
: >"$WORK/enough"
wait "$KILLER" || rc=1
KILLER=''
within listening 8080 || rc=1
echo "# nginx killed $(wc -l <"$WORK/kills") times"
(($(field retries) > before)) || rc=1
result "$rc" "every byte is right while nginx is killed, with a manifest"

# --- one that is slow

reads slow >"$WORK/slow.log" 2>&1 &
slow=$!
rc=0; reads here || rc=1
kill -0 "$slow" 2>/dev/null || { rc=1; echo "# the slow reader was not slow"; }
result "$rc" "a slow server holds up nobody else"
rc=0; wait "$slow" || { rc=1; sed 's/^/# /' "$WORK/slow.log"; }
result "$rc" "what came slowly is right"

# --- one that has another blob

head -c "$(stat -c %s "$WORK/web/changed")" /dev/urandom >"$WORK/web/changed.new"
touch -d '2001-01-01' "$WORK/web/changed.new"
mv "$WORK/web/changed.new" "$WORK/web/changed"
rc=0; ! block changed || rc=1
grep -q 'Input/output error' "$WORK/tail.log" || { rc=1; sed 's/^/# /' "$WORK/tail.log"; }
result "$rc" "another blob of the same size is not mixed into a mounted image"

# --- one that is gone

rc=0; reads slow || rc=1
nginx_stop
start=$SECONDS
! block gone || rc=1
grep -q 'Input/output error' "$WORK/tail.log" || { rc=1; sed 's/^/# /' "$WORK/tail.log"; }
took=$((SECONDS - start))
slowness
# A request for what was asked for, and one for what the kernel tries again; and what others do meanwhile.
allowed=$((2 * TOTAL + $(seconds 15) * SLOWNESS / 100))
echo "# an error after $took s of $allowed"
((took <= allowed)) || rc=1
result "$rc" "without a server there is an error in time"
rc=0; reads slow || rc=1
result "$rc" "and what is cached is read all the same"
nginx_start
rc=0; within listening 8080 && reads gone || rc=1
result "$rc" "once it is back all is read"

# --- what gives way

# pauses LIST: how long prefetching what is in LIST has paused, in milliseconds.
pauses() {
    timeout "$DEADLINE" "$DAEMON" prefetch --run-dir "$RUN" --jobs 2 --list "$1" --json web/polite \
        >"$WORK/prefetch.json" 2>"$WORK/prefetch.log" || { cat "$WORK/prefetch.log"; return 1; }
    sed -n 's/.*"paused_ms": \([0-9]*\).*/\1/p' "$WORK/prefetch.json"
}
# Three parts of a MiB.
echo f3000001 >"$WORK/large"
printf "%s\n" f300000 f65537 f4095 >"$WORK/small"
paused=$(pauses "$WORK/small")
echo "# paused for $paused ms with nobody else"
# A request of its own is seen as one of others for a moment, now and then: a longer one on a slow machine.
# Who gives way to himself does so for a second with each of the three files.
slowness
allowed=$(($(seconds 500) * SLOWNESS / 100))
((allowed < 1500)) || allowed=1500
rc=0; ((paused < allowed)) || rc=1
result "$rc" "prefetching does not give way to itself"
kill -STOP "$S3"
block moto &
reader=$!
waits() { (($(field requests_begun) > $(field requests_ended))); }
rc=0; within waits || rc=1
# A keeper that does not answer at once is not waited for.
gives_way() { paused=$(pauses "$WORK/large") && ((paused >= 1000)); }
within gives_way || rc=1
waits || { rc=1; echo "# the reader did not wait all the time"; }
kill -CONT "$S3"
wait "$reader" || rc=1
echo "# paused for $paused ms beside a reader who waits"
# A second for each part.
((paused <= 3000)) || rc=1
result "$rc" "prefetching gives way to a reader who waits, and goes on"

# --- S3

kill -STOP "$S3"
reads moto >"$WORK/moto.sums" 2>&1 &
reader=$!
# Held up for longer than one try (time itself is what is waited for); the worker dies meanwhile.
sleep $((TRY + 1))
kill -KILL "$(cat "$RUN/worker.pid")"
kill -CONT "$S3"
rc=0; wait "$reader" || { rc=1; sed 's/^/# /' "$WORK/moto.sums"; }
result "$rc" "every byte of S3 is right, though server and worker were held up"

rc=0
! grep -rq opensesame "$WORK/log" "$RUN" || rc=1
(($(field worker_starts) >= 2 && $(field kernel_errors) == 0)) || rc=1
result "$rc" "no secret is in the log, and the worker was replaced"

for image in "${IMAGES[@]}" here; do umount "$WORK/mnt-$image"; done
kill -TERM "$KEEPER"
rc=0; ended "$KEEPER" || rc=1
KEEPER=''
result "$rc" "an orderly end"

((failed == 0)) || last_words
exit "$failed"
