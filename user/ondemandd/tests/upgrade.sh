#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Upgrades ondemandd again and again while a reader mounts images that nothing is cached of, and compares
# every byte: to another file of the same program, to programs that cannot serve, and while workers die.
# KTAP; exit 4 = skip.
#
# To be run as root in a virtual machine with a cachefiles module loaded:
#
#   scripts/vm/run -- bash user/ondemandd/tests/upgrade.sh user/target/debug/ondemandd
#
# It would have caught: a new worker that answers while the old one does, or that begins without restore; an
# old one that is ended for a new one that cannot run; a keeper that loses its lock, its worker, its signals
# or its clients when it becomes another program; counters that begin anew.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=${1:?usage: upgrade.sh ONDEMANDD [UPGRADES]}
UPGRADES=${2:-10}
WORK=${ONDEMAND_DISK:-/var/tmp}/upgrade.$$
RUN=$WORK/run
# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"
# shellcheck source-path=SCRIPTDIR source=reader.bash
. "$(dirname "$0")/reader.bash"

plan 10

KEEPER=''
finish() {
    end_reader
    umount "$WORK/mnt" 2>/dev/null || true
    [[ -z $KEEPER ]] || kill "$KEEPER" 2>/dev/null || true
}
trap finish EXIT

mkdir -p "$WORK/blobs" "$WORK/cache" "$WORK/tree" "$WORK/mnt"
for size in 0 1 4097 300000 3000001 5000000; do
    head -c "$size" /dev/urandom >"$WORK/tree/f$size"
done
(cd "$WORK/tree" && sha256sum ./*) >"$WORK/sums"
mkfs.erofs --quiet "$WORK/blobs/image" "$WORK/tree" >"$WORK/mkfs.log" 2>&1
# Two files of the program; the one that is called ondemandd is the installed one.
cp "$DAEMON" "$WORK/one"
cp "$DAEMON" "$WORK/two"
ln "$WORK/one" "$WORK/ondemandd"

"$WORK/ondemandd" serve --cache "$WORK/cache" --source "$WORK/blobs" --run-dir "$RUN" --threads 3 \
    2>"$WORK/log" &
KEEPER=$!
rc=0; within ready "$KEEPER" || rc=1
result "$rc" "the keeper is ready"
((rc == 0)) || { echo "Bail out! no keeper"; last_words; exit 1; }

begin_reader
worker() { cat "$RUN/worker.pid"; }
# upgrade ARGUMENT...: its output is in $WORK/said.
upgrade() { timeout $((3 * DEADLINE)) "$DAEMON" upgrade --run-dir "$RUN" "$@" >"$WORK/said" 2>&1; }
# is_at FILE: the keeper is that program, and in the process that it has always been.
is_at() {
    [[ $(cat "$RUN/keeper.pid") == "$KEEPER" ]] &&
        [[ $(stat -Lc %i "/proc/$KEEPER/exe") == "$(stat -Lc %i "$1")" ]]
}
said() { sed 's/^/# /' "$WORK/said"; }
# refused STATUS REASON: an upgrade that has ended with STATUS was none, and it is said why.
refused() {
    if (($1 != 1)) || ! grep -q "no upgrade: $2" "$WORK/said"; then
        echo "# status $1" && said
        return 1
    fi
}

rc=0 old=$(worker)
declare -A workers=(["$old"]=1)
begun=$(cat "$WORK/rounds")
for ((i = 0; i < UPGRADES; i++)); do
    # Another file takes the program's place, as a package does it.
    file=two; ((i % 2 == 0)) || file=one
    ln -f "$WORK/$file" "$WORK/new"
    mv -f "$WORK/new" "$WORK/ondemandd"
    upgrade || { rc=1; said; break; }
    now=$(worker)
    is_at "$WORK/$file" || { rc=1; echo "# upgrade $i: the keeper is $(readlink "/proc/$KEEPER/exe")"; said; break; }
    [[ $(cat "$WORK/said") == "worker $now of $WORK/ondemandd serves" ]] || { rc=1; said; }
    [[ -z ${workers[$now]:-} ]] || { rc=1; echo "# upgrade $i: worker $now once more"; }
    workers[$now]=1
done
reads_on || rc=1
echo "# $((i)) upgrades in $(($(cat "$WORK/rounds") - begun)) rounds of the reader"
result "$rc" "$UPGRADES upgrades, each with another worker, in one keeper that is the new program"

rc=0
(($(field worker_starts) == UPGRADES + 1 && $(field restores) == UPGRADES)) || rc=1
(($(field reads) > 0 && $(field source_errors) == 0 && $(field uptime_seconds) > 0)) || rc=1
((rc == 0)) || { stats=$("$DAEMON" stats --run-dir "$RUN" --json) || true; printf '%s\n' "# ${stats//$'\n'/$'\n'# }"; }
result "$rc" "the counters go on"

rc=0 old=$(worker)
status=0; upgrade --program /bin/false || status=$?
refused "$status" "the new worker failed: .*exit status: 1" || rc=1
status=0; upgrade --program "$WORK/nonexistent" || status=$?
refused "$status" "the new worker failed: cannot start $WORK/nonexistent" || rc=1
[[ $(worker) == "$old" && -d /proc/$old ]] || rc=1
reads_on || rc=1
result "$rc" "a program that fails at its start: the old worker serves on, and it is said why"

printf '#!/bin/sh\nexec sleep 600\n' >"$WORK/mute"
chmod +x "$WORK/mute"
rc=0
status=0; upgrade --program "$WORK/mute" || status=$?
refused "$status" "the new worker was not prepared in time" || rc=1
[[ $(worker) == "$old" && -d /proc/$old ]] || rc=1
reads_on || rc=1
result "$rc" "so it does if the new one is never prepared"

# A program that prepares when it is let: then there is time to kill somebody.
cat >"$WORK/slow" <<SLOW
#!/bin/bash
echo \$\$ >"$WORK/slow.pid"
until [[ -e $WORK/let ]]; do sleep 0.05; done
exec "$WORK/two" "\$@"
SLOW
chmod +x "$WORK/slow"
# slow_upgrade: begins one; returns when its worker is there, and is not prepared.
slow_upgrade() {
    rm -f "$WORK/slow.pid" "$WORK/let"
    upgrade --program "$WORK/slow" &
    UPGRADE=$!
    within test -s "$WORK/slow.pid"
}

rc=0
slow_upgrade || rc=1
status=0; timeout "$DEADLINE" "$DAEMON" upgrade --run-dir "$RUN" 2>"$WORK/second" || status=$?
((status == 1)) && grep -q "another upgrade is under way" "$WORK/second" || rc=1
kill -KILL "$(cat "$WORK/slow.pid")" || rc=1
status=0; ended "$UPGRADE" || status=$?
refused "$status" "the new worker failed: .*signal: 9" || rc=1
[[ $(worker) == "$old" && -d /proc/$old ]] || rc=1
reads_on || rc=1
result "$rc" "a new worker that is killed while it prepares is no loss"

rc=0
slow_upgrade || rc=1
# The keeper will be this program, too, and will have written its own pid by then.
next=$(cat "$WORK/slow.pid")
kill -KILL "$old"
touch "$WORK/let"
ended "$UPGRADE" || { rc=1; said; }
[[ $(worker) == "$next" ]] || { rc=1; echo "# worker $(worker), not $next"; }
is_at "$WORK/two" || rc=1
reads_on || rc=1
result "$rc" "an old worker that is killed meanwhile is followed by the new one"

rc=0 old=$(worker)
kill -STOP "$old"
upgrade --program "$WORK/one" || { rc=1; said; }
[[ $(worker) != "$old" && ! -d /proc/$old ]] && is_at "$WORK/one" || rc=1
reads_on || rc=1
result "$rc" "an old worker that does not listen is killed"

touch "$WORK/enough"
# It may have just begun a round.
rc=0; DEADLINE=$((3 * DEADLINE)) ended "$READER" || rc=1
READER=''
[[ ! -s $WORK/wrong ]] || { rc=1; sed 's/^/# /' "$WORK/wrong" "$WORK/reader.log"; }
# The keeper that was upgraded replaces workers as before.
old=$(worker)
kill -KILL "$old"
within replaced "$old" || rc=1
one_round last || rc=1
result "$rc" "the reader has seen no error and no wrong byte in $(cat "$WORK/rounds") rounds"

kill -USR1 "$KEEPER"
rc=0; within test -s "$RUN/stats.json" || rc=1
kill -TERM "$KEEPER"
ended "$KEEPER" || rc=1
KEEPER=''
[[ ! -e $RUN/keeper.pid && ! -e $RUN/worker.pid && ! -e $RUN/control.sock ]] || rc=1
within is_free || rc=1
result "$rc" "signals reach the keeper, and when it has ended the device is free"

((failed == 0)) || last_words
exit "$failed"
