#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# nginx gives two files of different bytes the same strong ETag if their size and the
# second of their modification time are equal. So If-Range and If-Match succeed with
# the other file's ETag, and a range of the new file continues the old one.
#
# Seen:    nginx 1.22.1 (Debian 12): ETag "386d4380-1000" for both files, 206 for
#          the range of the second one with If-Range of the first one's ETag
# Why:     the ETag is the modification time in seconds and the size, in hex. By
#          RFC 9110, 8.8.1, a strong validator changes when the bytes do.
# Matters: images are padded to blocks, so a rebuilt image often has the size of the
#          old one. Reproducible builds and copies that keep times (cp -p, rsync -a,
#          tar) keep its modification time as well. A cache that trusts the ETag
#          mixes the two: give such images a manifest.
#
# Needs apt-get, dpkg, curl. Exit status: 0 as described, 1 not any more, 2 it cannot
# be tried here.
set -euo pipefail

WORK=$(mktemp -d)
SERVER=''
trap '[[ -z $SERVER ]] || kill "$SERVER" 2>/dev/null || true; rm -rf "$WORK"' EXIT
cd "$WORK"
apt-get -qq download 'nginx=1.22.1-*' || { echo "apt has no nginx 1.22.1"; exit 2; }
dpkg -x nginx_*.deb root

mkdir web
head -c 4096 /dev/zero | tr '\0' a >web/old
head -c 4096 /dev/zero | tr '\0' b >web/new
touch -d '2000-01-01T00:00:00Z' web/old web/new
{
    [[ $(id -u) != 0 ]] || echo "user root;"
    echo "daemon off; master_process off; pid $WORK/pid; error_log $WORK/log;"
    echo "events { }"
    echo "http { access_log off; root $WORK/web; server { listen unix:$WORK/socket; }"
    for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $WORK/tmp;"; done
    echo "}"
} >conf
root/usr/sbin/nginx -e "$WORK/log" -c "$WORK/conf" &
SERVER=$!
for _ in {1..100}; do
    [[ ! -S socket ]] || break
    sleep 0.1
done
get() { curl --silent --max-time 20 --unix-socket socket "$@"; }
etag() { get --head "http://localhost/$1" | tr -d '\r' | sed -n 's/^ETag: //p'; }

old=$(etag old) new=$(etag new)
status=$(get --output part --write-out '%{http_code}' --range 2048-4095 --header "If-Range: $old" http://localhost/new)
echo "$(root/usr/sbin/nginx -v 2>&1): ETag of old $old, of new $new; range of new with If-Range of old: $status"
cmp -s web/old web/new && exit 1
[[ $old == '"'* && $old == "$new" && $status == 206 ]]
