#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# preadv2(RWF_NOWAIT) of data that is not in the page cache fails with EAGAIN, as
# documented, and also starts to read the data: from the second call on it is in the
# page cache. So the call cannot test whether a file is in memory: a process that
# polls with it brings dropped pages back.
#
# Seen:    Linux 6.12.117 and 6.18.44, ext4; a file of 1 MiB that was dropped
#          with POSIX_FADV_DONTNEED
#          before: 0 bytes resident; first call: EAGAIN; then: 16384 bytes
#          resident; second call: 1 byte read
# Why:     filemap_get_pages() (mm/filemap.c) starts readahead for IOCB_NOWAIT,
#          and omits it only for IOCB_NOIO, which user space cannot set.
# Matters: `fill buffered` drops clean pages. A test of that which used RWF_NOWAIT
#          waited forever; fincore(1) and mincore(2) have no side effect.
#
# Needs Python 3 and fincore (util-linux), and a temporary directory on ext4, XFS
# or Btrfs ($TMPDIR, or /var/tmp). Exit status: 0 as described, 1 not any more, 2 it
# cannot be tried here.
set -euo pipefail

WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/finding.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
case $(stat -f -c %T "$WORK") in
ext2/ext3 | xfs | btrfs) ;;
*)
    echo "$WORK is on $(stat -f -c %T "$WORK"): set TMPDIR to a directory on ext4, XFS or Btrfs"
    exit 2
    ;;
esac
command -v fincore >/dev/null || { echo "no fincore (util-linux)"; exit 2; }

resident() { fincore --bytes --noheadings --output RES "$WORK/file" | tr -d ' '; }
# call: one byte at 0 by preadv2(RWF_NOWAIT); prints the count, or the name of the error.
call() {
    python3 - "$WORK/file" <<'PYTHON'
import errno, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
try:
    print(os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT))
except OSError as error:
    print(errno.errorcode[error.errno])
PYTHON
}

python3 - "$WORK/file" <<'PYTHON'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(fd, b"x" * (1 << 20))
os.fsync(fd)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
PYTHON

before=$(resident)
first=$(call)
after=0
for _ in {1..50}; do
    after=$(resident)
    ((after == 0)) || break
    sleep 0.1
done
second=$(call)
echo "Linux $(uname -r), $(stat -f -c %T "$WORK"): $before bytes resident, $first, $after bytes resident, $second"
[[ $before == 0 && $first == EAGAIN && $second == 1 ]] && ((after > 0))
