# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# Deadlines that follow the speed of the machine, for scripts; the same in Rust is user/deadline.
# To be sourced; needs bash alone.
#
# ONDEMAND_TIMEOUT_PERCENT says how slow this machine is at its best, in percent of the reference
# machine's time: 100 (default) to 2000.  How busy it is, is measured while something is waited for.

# seconds N: so many seconds of the reference machine are so many here, at its best.
seconds() {
    local percent=${ONDEMAND_TIMEOUT_PERCENT:-100}
    [[ $percent == [1-9]*([0-9]) ]] || percent=100
    ((${#percent} < 5 && percent <= 2000)) || percent=2000
    ((percent >= 100)) || percent=100
    echo $((($1 * percent + 99) / 100))
}

# microseconds: sets NOW.
microseconds() { NOW=${EPOCHREALTIME/[.,]/}; }

# slowness: sets SLOWNESS to how much slower than at its best this shell runs now: in percent, 100 if
# nobody else wants its processor, 2000 at most.  Takes a twentieth of a second or some more.
SLOWNESS=100 BEST_UNIT=0
slowness() {
    local begun start units=0 i
    microseconds
    begun=$NOW
    until ((units >= 16 && NOW - begun >= 50000)); do
        start=$NOW
        for ((i = 0; i < 100; i++)); do :; done
        microseconds
        units=$((units + 1))
        # The clock may have been set.
        ((NOW > start)) || continue
        ((BEST_UNIT && BEST_UNIT <= NOW - start)) || BEST_UNIT=$((NOW - start))
    done
    SLOWNESS=$(((NOW - begun) * 100 / units / (BEST_UNIT ? BEST_UNIT : 1)))
    # Some units are slower than the best on every machine.
    ((SLOWNESS > 125)) || SLOWNESS=100
    ((SLOWNESS < 2000)) || SLOWNESS=2000
}

# begin_deadline SECONDS: so many, of a machine that is not busy, from now on; 20 times as many at most.
begin_deadline() {
    local budget=$(($1 * 1000000))
    microseconds
    # What is allowed, used up, between two measurements; when was the last, when is the end at the latest.
    WAIT=("$budget" 0 $((budget / 8)) "$NOW" $((NOW + budget * 20)))
    ((WAIT[2] < 5000000)) || WAIT[2]=5000000
}
# deadline_passed: whether it has.  Each part of the wait is counted by what the machine is like at its
# end, and no part as more than twice its length, for this shell may have been stopped meanwhile.
deadline_passed() {
    local took
    microseconds
    took=$((NOW - WAIT[3]))
    if ((took >= WAIT[2])); then
        ((took <= 2 * WAIT[2])) || took=$((2 * WAIT[2]))
        slowness
        WAIT[1]=$((WAIT[1] + took * 100 / SLOWNESS))
        WAIT[3]=$NOW
    fi
    ((WAIT[1] >= WAIT[0] || NOW >= WAIT[4]))
}

# within_seconds SECONDS COMMAND...: waits until the command succeeds; fails at such a deadline.
within_seconds() {
    local passed WAIT
    begin_deadline "$1"
    shift
    while :; do
        # In this order: what happened in time is seen, however late this shell runs again.
        passed=0
        ! deadline_passed || passed=1
        if "$@" 2>/dev/null; then return 0; fi
        ((!passed)) || return 1
        sleep 0.05
    done
}
