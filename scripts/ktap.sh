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
