# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# Results of scripts that are tests.  To be sourced after lib.sh.

number=0 failures=0
# A file that is shown, as comments, after each bad result.
KTAP_LOG=''

# result STATUS TEXT: one line of KTAP.
result() {
    number=$((number + 1))
    if (($1 == 0)); then
        say "ok $number $2"
    else
        say "not ok $number $2"
        failures=$((failures + 1))
        [[ -z $KTAP_LOG ]] || sed 's/^/# /' "$KTAP_LOG"
    fi
}

# results_of_guest COUNT: what a guest prints, from standard input: its "ok TEXT" and "not ok TEXT"
# are results, as many as COUNT, and the rest is comment.
results_of_guest() {
    local line last=$((number + $1))
    while IFS= read -r line; do
        case $line in
        "ok "*) result 0 "guest: ${line#ok }" ;;
        "not ok "*) result 1 "guest: ${line#not ok }" ;;
        *) say "# $line" ;;
        esac
    done
    while ((number < last)); do result 1 "guest: no result"; done
}
