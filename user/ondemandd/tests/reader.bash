# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2317
#
# A reader for the tests beside this file, which goes on while what serves it is killed or
# replaced.  To be sourced after ktap.bash.  $WORK/blobs/image is the image, $WORK/sums what
# sha256sum says of the files in it, $WORK/mnt where it is mounted.

READER=''
# one_round NAME: reads the image under a name that the cache has not seen.
one_round() {
    ln "$WORK/blobs/image" "$WORK/blobs/$1"
    timeout $((3 * DEADLINE)) mount -t erofs none -o "fsid=$1" "$WORK/mnt" || return 1
    (cd "$WORK/mnt" && timeout $((3 * DEADLINE)) sha256sum --quiet -c "$WORK/sums") || return 1
    umount "$WORK/mnt"
}
rounds_of_reader() {
    local round=0
    # What is replaced has ten seconds, and is not to wait for a processor.
    renice -n 10 "$BASHPID" >/dev/null
    while [[ ! -e $WORK/enough ]]; do
        round=$((round + 1))
        if ! one_round "round$round"; then
            echo "round $round" >>"$WORK/wrong"
            umount "$WORK/mnt" 2>/dev/null || true
        fi
        # Never half written, for others read it.
        echo "$round" >"$WORK/rounds.new" && mv "$WORK/rounds.new" "$WORK/rounds"
    done
}
# begin_reader: it reads round after round, until end_reader.  $WORK/rounds says how many it has
# done, $WORK/wrong which of them had an error.
begin_reader() {
    echo 0 >"$WORK/rounds"
    : >"$WORK/wrong"
    rounds_of_reader 2>>"$WORK/reader.log" &
    READER=$!
}
end_reader() {
    touch "$WORK/enough"
    [[ -z $READER ]] || wait "$READER" || true
    READER=''
}
# reads_on: the reader has finished a round that it has begun after this call, without an error.
reads_on() {
    local from DEADLINE=$((3 * DEADLINE))
    from=$(cat "$WORK/rounds")
    more() { (($(cat "$WORK/rounds") >= from + 2)); }
    within more && [[ ! -s $WORK/wrong ]]
}
