#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Runs ondemand-selftest with a directory that a cache can be in.  KTAP; exit
# status 0 passed, 1 failed, 4 skipped: nothing could run here.
#
#   ./ondemand_selftest.sh [ARGUMENT of ondemand-selftest ...]
#
# $ONDEMAND_DISK names the directory; without it /var/cache is taken if its file
# system will do, and else an ext4 in a file below ${TMPDIR:-/tmp}.
set -uo pipefail

HERE=$(dirname "$(readlink -f "$0")")
PATH=$PATH:/usr/sbin:/sbin

skip() {
    echo "1..0 # SKIP $*"
    exit 4
}

PROGRAM=
for file in "$(dirname "$0")/ondemand-selftest" "$HERE/ondemand-selftest"; do
    if [[ -z $PROGRAM && -x $file ]]; then PROGRAM=$file; fi
done
[[ -n $PROGRAM ]] || skip "no ondemand-selftest beside this script: it was not built"
((EUID == 0)) || skip "not root"
[[ -c /dev/cachefiles ]] || skip "no /dev/cachefiles: no backend is loaded"
command -v mkfs.erofs >/dev/null || skip "no mkfs.erofs"

WORK=
# shellcheck disable=SC2317 # called by the trap
finish() {
    [[ -n $WORK ]] || return
    umount "$WORK/disk" 2>/dev/null
    rm -f "$WORK/disk.img"
    rmdir "$WORK/disk" "$WORK"
}
trap finish EXIT

if [[ -z ${ONDEMAND_DISK:-} ]]; then
    case $(stat -f -c %T /var/cache) in
    ext2/ext3 | xfs | btrfs) ONDEMAND_DISK=/var/cache ;;
    *)
        WORK=$(mktemp -d "${TMPDIR:-/tmp}/ondemand_selftest.XXXXXX") || skip "no directory to work in"
        ONDEMAND_DISK=$WORK/disk
        mkdir "$WORK/disk"
        if ! truncate -s 2G "$WORK/disk.img" || ! mkfs.ext4 -q "$WORK/disk.img" ||
            ! mount -o loop,noatime "$WORK/disk.img" "$WORK/disk"; then
            skip "no ext4 for the cache: set ONDEMAND_DISK"
        fi
        ;;
    esac
fi
export ONDEMAND_DISK

FLAGS=()
# The kernel's own backend, which may be built in, fails some of these, and some are not run against it.
[[ -d /sys/module/cachefiles_ondemand && ! -d /sys/module/cachefiles ]] || FLAGS=(--expect-c)
"$PROGRAM" "${FLAGS[@]}" "$@"
