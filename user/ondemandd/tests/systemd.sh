#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# ondemandd as a service: a restart and a crash of the keeper keep mounts and readers, a stop ends the cache.
# KTAP; exit 4 = skip.
#
# To be run as root in a virtual machine whose init is systemd, with a cachefiles module loaded and nothing
# else that uses the device:
#
#   user/ondemandd/tests/systemd.sh /usr/local/sbin/ondemandd [best-effort|required]
#
# The second word is for `sandbox` in the configuration; required needs a kernel with Landlock and seccomp, and
# with seccomp alone the unit's own limits are in force.
#
# It would have caught: a reader who gets an error while everything is killed at once; a unit that keeps the
# keeper from what it needs, a device that systemd does not keep,
# a keeper that does not find it, a cache that outlives its service.
# shellcheck disable=SC2317 # some functions are called by a trap or by name
set -euo pipefail

DAEMON=$(realpath "${1:?usage: systemd.sh ONDEMANDD [best-effort|required]}")
SANDBOX=${2:-best-effort}
WORK=${ONDEMAND_DISK:-/var/tmp}/systemd.$$
RUN=/run/ondemandd
UNIT=ondemandd-test.service
# shellcheck source-path=SCRIPTDIR source=ktap.bash
. "$(dirname "$0")/ktap.bash"
# shellcheck source-path=SCRIPTDIR source=reader.bash
. "$(dirname "$0")/reader.bash"
# How often something is killed while a reader reads.
KILLS=${KILLS:-9}
[[ -d /run/systemd/system ]] || skip "init is not systemd"
[[ ! -e $RUN ]] || skip "$RUN is in use"

plan 9
mkdir -p "$WORK/blobs" "$WORK/tree" "$WORK/mnt"
last_words() { journalctl --no-pager -n 60 -u "$UNIT" | sed 's/^/# /'; }

finish() {
    end_reader
    umount "$WORK/mnt" 2>/dev/null || true
    systemctl stop "$UNIT" 2>/dev/null || true
    rm -f "/run/systemd/system/$UNIT"
    systemctl daemon-reload || true
}
trap finish EXIT

head -c 3000000 /dev/urandom >"$WORK/tree/first"
head -c 3000000 /dev/urandom >"$WORK/tree/second"
head -c 3000000 /dev/urandom >"$WORK/tree/third"
head -c 3000000 /dev/urandom >"$WORK/tree/fourth"
mkfs.erofs --quiet "$WORK/blobs/image" "$WORK/tree" >"$WORK/mkfs.log" 2>&1
printf '%s = "%s"\n' cache "$WORK/cache" source "$WORK/blobs" tag systemd \
    sandbox "$SANDBOX" >"$WORK/config.toml"
sed -e "s#^ExecStart=.*#ExecStart=$DAEMON serve --config $WORK/config.toml#" \
    -e "s#^ExecReload=.*#ExecReload=$DAEMON upgrade --program $DAEMON#" \
    "$(dirname "$0")/../dist/ondemandd.service" >"/run/systemd/system/$UNIT"
systemctl daemon-reload

show() { systemctl show -P "$1" "$UNIT"; }
# same FILE: reads it without the page cache.
same() {
    echo 3 >/proc/sys/vm/drop_caches
    timeout "$DEADLINE" cmp "$WORK/mnt/$1" "$WORK/tree/$1"
}

rc=0
timeout "$DEADLINE" systemctl start "$UNIT" || rc=1
[[ $(show ActiveState) == active && $(show NFileDescriptorStore) == 1 ]] || rc=1
[[ $(cat $RUN/keeper.pid) == "$(show MainPID)" ]] || rc=1
result "$rc" "the service is active when the worker serves, and its device is kept"
((rc == 0)) || { echo "Bail out! no service"; last_words; exit 1; }

rc=0
timeout "$DEADLINE" mount -t erofs none -o fsid=image "$WORK/mnt" || rc=1
same first || rc=1
result "$rc" "an image is mounted and read"

rc=0 old=$(show MainPID) worker=$(cat $RUN/worker.pid)
timeout "$DEADLINE" systemctl reload "$UNIT" || rc=1
[[ $(show MainPID) == "$old" && $(cat $RUN/worker.pid) != "$worker" ]] || rc=1
[[ $(show ActiveState) == active && $(show NFileDescriptorStore) == 1 ]] || rc=1
grep -qz "^resume$" "/proc/$old/cmdline" || { rc=1; echo "# the keeper is what it was"; }
same fourth || rc=1
result "$rc" "a reload upgrades worker and keeper in one process, and keeps the mount"

rc=0 old=$(show MainPID)
timeout "$DEADLINE" systemctl restart "$UNIT" || rc=1
[[ $(show MainPID) != "$old" && $(show NFileDescriptorStore) == 1 ]] || rc=1
same second || rc=1
result "$rc" "a restart keeps the cache and the mount"

rc=0 old=$(show MainPID)
kill -KILL "$old"
restarted() { [[ $(show ActiveState) == active && $(show MainPID) != "$old" ]]; }
# Not before the keeper is seen to be gone; meanwhile a reader waits.
same third || rc=1
within restarted || rc=1
same second || rc=1
result "$rc" "so does a keeper that is killed"

umount "$WORK/mnt"
(cd "$WORK/tree" && sha256sum ./*) >"$WORK/sums"
begin_reader
# other KEEPER WORKER: another of each serves.
other() { [[ $(show ActiveState) == active && $(show MainPID) != "$1" ]] && replaced "$2"; }
rc=0
for ((i = 0; i < KILLS; i++)); do
    old=$(show MainPID) worker=$(cat $RUN/worker.pid)
    case $((i % 3)) in
    0) kill -KILL "$worker" && within replaced "$worker" || rc=1 ;;
    1) systemctl kill --signal=KILL "$UNIT" && within other "$old" "$worker" || rc=1 ;;
    2) kill -KILL "$old" && within other "$old" "$worker" || rc=1 ;;
    esac
    ((rc == 0)) || { echo "# kill $i" && break; }
done
reads_on || rc=1
(($(show NFileDescriptorStore) == 1)) || rc=1
echo "# $i kills in $(cat "$WORK/rounds") rounds of the reader; errors: $(wc -l <"$WORK/wrong")"
result "$rc" "a reader does not notice that worker, service and keeper are killed, $KILLS times in all"

rc=0
for ((i = 0; i < 2; i++)); do
    old=$(show MainPID) worker=$(cat $RUN/worker.pid)
    timeout "$DEADLINE" systemctl restart "$UNIT" && within other "$old" "$worker" || rc=1
    worker=$(cat $RUN/worker.pid)
    timeout "$DEADLINE" systemctl reload "$UNIT" && within replaced "$worker" || rc=1
done
reads_on || rc=1
result "$rc" "nor that the service is restarted and reloaded, twice each"
end_reader

rc=0
timeout "$DEADLINE" systemctl stop "$UNIT" || rc=1
[[ $(show ActiveState) == inactive && $(show NFileDescriptorStore) == 0 ]] || rc=1
result "$rc" "a stop lets the device go"

rc=0; within is_free || rc=1
result "$rc" "and it is free again"

((failed == 0)) || last_words
exit "$failed"
