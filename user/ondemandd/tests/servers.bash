# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# A real nginx and a real S3 server (moto), for what is beside this file.  To be sourced after
# ktap.bash; NGINX is its program, PYTHON one that has moto.

S3=''
# nginx_config LOCATION...: $WORK/web is served at 127.0.0.1:8080, and these are parts of it.
nginx_config() {
    cat >"$WORK/nginx.conf" <<CONF
user root;
worker_processes 1;
pid $WORK/nginx.pid;
error_log $WORK/nginx.log warn;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $WORK/tmp; proxy_temp_path $WORK/tmp; fastcgi_temp_path $WORK/tmp;
    uwsgi_temp_path $WORK/tmp; scgi_temp_path $WORK/tmp;
    server {
        listen 127.0.0.1:8080;
        root $WORK/web;
        $*
    }
}
CONF
}
nginx_start() { "$NGINX" -c "$WORK/nginx.conf" -e "$WORK/nginx.log" 2>>"$WORK/nginx.out"; }
# All of nginx, at once: what it was sending is cut short.
nginx_stop() {
    pkill -KILL -f "$WORK/nginx.conf|nginx: worker process" || true
    # A signal is not an end: who starts the next one finds the port in use.
    within nginx_gone || true
}
nginx_gone() { ! pgrep -f "$WORK/nginx.conf|nginx: worker process" >/dev/null; }

# The S3 server is at 127.0.0.1:5000.
s3_start() {
    "$PYTHON" -m moto.server -H 127.0.0.1 -p 5000 >"$WORK/moto.log" 2>&1 &
    S3=$!
}
s3_stop() { [[ -z $S3 ]] || kill -KILL "$S3" 2>/dev/null || true; }
# s3_put FILE KEY...: a file, under each of these keys, in the bucket `images`, which is made.
s3_put() {
    "$PYTHON" - "$@" <<'PUT'
import sys, urllib.request
def put(path, data):
    request = urllib.request.Request("http://127.0.0.1:5000" + path, data=data, method="PUT",
                                     headers={"Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        assert answer.status == 200, answer.status
put("/images", b"")
with open(sys.argv[1], "rb") as file:
    data = file.read()
for key in sys.argv[2:]:
    put("/images/" + key, data)
PUT
}

# listening PORT: whether somebody does.
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
