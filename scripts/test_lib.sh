# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154
#
# How scripts/test runs things and counts: single items, cargo's tests, KTAP
# from the guest.  To be sourced after lib.sh.

PASSED=0 FAILED=0 SKIPPED=0 KNOWN=0 FAILED_NAMES=() SURPRISES=()

# What is no selftest and can be selected by name all the same.
PARTS=(exchange fuzz power-cut storm)

failed() {
    FAILED=$((FAILED + 1))
    FAILED_NAMES+=("$1")
}

# item NAME TITLE COMMAND...: a phase that is one test.
item() {
    if phase "$@"; then PASSED=$((PASSED + 1)); else failed "$1"; fi
}

# Runs a command and fails, too, if it warned.
without_warnings() {
    local out
    out=$(mktemp)
    "$@" 2>&1 | tee "$out"
    if grep -E '(^|[^-])\bwarning: ' "$out"; then
        rm -f "$out"
        echo "there were warnings"
        return 1
    fi
    rm -f "$out"
}

# The tests of user space, each counted.
cargo_tests() {
    local rc=0 log=$LOGS/cargo-test.log line
    phase cargo-test "user space: cargo nextest" \
        "$NEXTEST" nextest run --locked --manifest-path "$USER_TOML" --workspace --color never || rc=$?
    # "     Summary [  15.890s] 468 tests run: 466 passed, 1 failed, 1 timed out, 1 skipped"
    line=$(sed -n 's/^ *Summary \[[^]]*\] //p' "$log" | tail -n 1)
    [[ ! $line =~ ([0-9]+)\ tests?\ run: ]] || FAILED=$((FAILED + BASH_REMATCH[1]))
    if [[ $line =~ ([0-9]+)\ passed ]]; then
        PASSED=$((PASSED + BASH_REMATCH[1])) FAILED=$((FAILED - BASH_REMATCH[1]))
    fi
    [[ ! $line =~ ([0-9]+)\ skipped ]] || SKIPPED=$((SKIPPED + BASH_REMATCH[1]))
    # Each that has not passed is named below the sum: "        FAIL [   0.005s] CRATE::BINARY TEST".
    while read -r line; do
        FAILED_NAMES+=("$line")
    done < <(sed -n '/^ *Summary /,$ s/^ *[A-Z][A-Z-]* \[[^]]*\] *\(([^)]*) *\)\?//p' "$log" | sort -u)
    # It did not even compile, or has ended before its sum.
    if ((rc)) && ! grep -q '^ *Summary ' "$log"; then failed cargo-test; fi
}

# count_ktap FILE: adds the results in FILE; prints the names they are of.
count_ktap() {
    local line name names
    KTAP_NAMES=()
    while read -r line; do
        if [[ $line == "# known as defects of the C module, and passed: "* ]]; then
            read -ra names <<<"${line##*: }"
            SURPRISES+=("${names[@]}")
        fi
        [[ $line =~ ^(not\ )?ok\ [0-9]+\ (-\ )?(.*)$ ]] || continue
        name=${BASH_REMATCH[3]%% #*}
        KTAP_NAMES+=("$name")
        if [[ -n ${BASH_REMATCH[1]} ]]; then
            failed "$name"
        elif [[ $line == *"# SKIP"* ]]; then
            SKIPPED=$((SKIPPED + 1))
        elif [[ $line == *"# known C defect"* ]]; then
            KNOWN=$((KNOWN + 1))
        else
            PASSED=$((PASSED + 1))
        fi
    done <"$1"
}

# words_of_failures: each bad result of the guests, with the comments beside it.
words_of_failures() {
    local files
    mapfile -t files < <(find "$RESULTS" -maxdepth 1 -name '*.ktap')
    ((${#files[@]})) || return 0
    awk -v most=60 '
        FNR == 1 { before = after = 0 }
        /^#/ { if (after > 0) { print; after-- } else lines[before++ % most] = $0; next }
        /^not ok / {
            for (i = before > most ? before - most : 0; i < before; i++) print lines[i % most]
            print
            after = most
        }
        /^ok / { after = 0 }
        /^(not )?ok / { before = 0 }
    ' "${files[@]}" | cut -c1-300 | sed 's/^/  | /'
}

# freeze_build: copies what the guests run to $RESULTS/bin.  A build that goes on
# beside the tests would change programs under those who run them.
freeze_build() {
    mkdir -p "$RESULTS/bin"
    cp "$BIN"/{ondemand-selftest,ondemand-store,ondemandd,storm} "$MODULE" "$RESULTS/bin/"
    BIN=$RESULTS/bin
    MODULE=$BIN/cachefiles_ondemand.ko
}

# machine NAME SECONDS [--leak-check] COMMAND...: in a virtual machine; the status is the
# command's or vm/run's.
machine() {
    local name=$1 seconds=$2 leaks=()
    shift 2
    [[ $1 != --leak-check ]] || { leaks=("$1") && shift; }
    mkdir -p "$RESULTS/$name"
    "$REPO/scripts/vm/run" "${KERNEL_FLAGS[@]}" "${leaks[@]}" --kernel "$KERNEL" --backend "$BACKEND" \
        --module "$MODULE" --timeout "$seconds" --results "$RESULTS/$name" \
        --log "$LOGS/vm-$name.log" -- "$@" 2>&1
}

# guest NAME ...: a machine, shown as it goes, kept in $RESULTS/NAME.ktap.
guest() {
    local rc=0
    machine "$@" | tee "$RESULTS/$1.ktap" | sed -u 's/^/  | /' || rc=$?
    return "$rc"
}

# selected PART: whether one of PARTS is to be run.
selected() {
    ((${#NAMES[@]} == 0)) || [[ " ${NAMES[*]} " == *" $1 "* ]]
}

# The selftests that are selected, by name: a word stands for all that begin so.
selected_selftests() {
    local all word
    mapfile -t all < <("$BIN/ondemand-selftest" --list | cut -d' ' -f1)
    ((${#NAMES[@]})) || { printf '%s\n' "${all[@]}" && return; }
    for word in "${NAMES[@]}"; do
        [[ " ${PARTS[*]} " != *" $word "* ]] || continue
        printf '%s\n' "${all[@]}" | grep -E "^${word//\*/.*}" || echo "?$word"
    done | awk '!seen[$0]++'
}

# Runs the selftests.  A guest that crashes or hangs takes the test down that it
# was at; the others get a new guest.
selftests() {
    # Each selftest has a deadline of its own: that of the guest is for one that is dead, however
    # slow or busy the machine.
    local left run=0 rc name flags=() seconds=1500 leaks=()
    # Only the debug kernel has kmemleak.
    ((${#KERNEL_FLAGS[@]})) && seconds=3000 leaks=(--leak-check)
    case $BACKEND in
    rust) flags=(--other-module "$KERNEL/fs/cachefiles/cachefiles.ko") ;;
    c) flags=(--expect-c --other-module "$MODULE") ;;
    esac
    flags+=("${SETUP[@]}")
    mapfile -t left < <(selected_selftests | grep -v '^smack_' || true)
    for name in "${left[@]}"; do
        [[ $name != \?* ]] || die "no selftest begins with ${name#?}; see ondemand-selftest --list"
    done
    while ((${#left[@]} && run < 6)); do
        run=$((run + 1)) rc=0
        say "  ${#left[@]} selftests"
        guest "selftest-$run" "$seconds" "${leaks[@]}" "$BIN/ondemand-selftest" "${flags[@]}" "${left[@]}" || rc=$?
        count_ktap "$RESULTS/selftest-$run.ktap"
        mapfile -t left < <(printf '%s\n' "${left[@]}" |
            grep -vxFf <(printf '%s\n' "${KTAP_NAMES[@]}") || true)
        if ((${#left[@]} == 0)); then
            ((${#leaks[@]} == 0)) || [[ " ${KTAP_NAMES[*]} " == *" kernel_log "* ]] ||
                failed "selftests (status $rc while the module was unloaded)"
            break
        fi
        # Out of time, but not for want of progress: on with the rest.
        ((rc == 124 && ${#KTAP_NAMES[@]})) && continue
        # What has no result and comes first is what the guest was at.
        failed "${left[0]} (no result: the guest ended with status $rc)"
        left=("${left[@]:1}")
    done
    for name in "${left[@]}"; do failed "$name (not run)"; done
}

# Runs the selftests that need a security module, in a guest that has one.  The
# debug kernel has none.
smack_selftests() {
    local chosen rc=0 flags=()
    ((${#KERNEL_FLAGS[@]} + ${#SETUP[@]} == 0)) || return 0
    local KERNEL_FLAGS=(--append lsm=smack)
    [[ $BACKEND != c ]] || flags=(--expect-c)
    mapfile -t chosen < <(selected_selftests | grep '^smack_' || true)
    ((${#chosen[@]})) || return 0
    say "  ${#chosen[@]} selftests with Smack"
    guest selftest-smack 600 "$BIN/ondemand-selftest" "${flags[@]}" "${chosen[@]}" || rc=$?
    count_ktap "$RESULTS/selftest-smack.ktap"
    ((${#KTAP_NAMES[@]} == ${#chosen[@]})) || failed "selftests with Smack (status $rc)"
}

# One of the daemon's own scripts, in a guest of its own.
daemon_script() {
    local name command=(bash "$1" "$BIN/ondemandd") flags=("${KERNEL_FLAGS[@]}")
    name=$(basename "$1" .sh)
    case $name in
    sandbox | systemd) command+=(required) flags+=(--append lsm=landlock) ;;
    remote) command+=("$NGINX" "$MOTO/bin/python") ;;
    esac
    [[ $name != systemd ]] || command=(bash "${1%/*}/under-systemd" "${command[@]}")
    local KERNEL_FLAGS=("${flags[@]}")
    aside "ondemandd-$name" "ondemandd-$name" machine "ondemandd-$name" 1800 "${command[@]}"
}

# A store that goes from one module to the other.
over_modules() {
    local seconds=800
    ((${#KERNEL_FLAGS[@]})) && seconds=2500
    aside exchange "a store under both modules" \
        "$REPO/scripts/vm/exchange" --store "$BIN/ondemand-store" --module "$MODULE" \
        --kernel "$KERNEL" --timeout "$seconds" --log "$LOGS/vm-exchange.log"
}

# A store that goes through power cuts, filled in either way.
over_boots() {
    aside power-cut "a store over power cuts" \
        "$REPO/scripts/vm/power-cut" "${KERNEL_FLAGS[@]}" \
        --store "$BIN/ondemand-store" --module "$MODULE" --kernel "$KERNEL" --logs "$LOGS"
    aside power-cut-buffered "the same with fill buffered" \
        "$REPO/scripts/vm/power-cut" "${KERNEL_FLAGS[@]}" --setup "fill buffered" --boots 3 \
        --store "$BIN/ondemand-store" --module "$MODULE" --kernel "$KERNEL" --logs "$LOGS"
}

# The pure files under libFuzzer.
fuzzing() {
    aside fuzz "the pure files, fuzzed" "$REPO/scripts/fuzz" --ktap
}

# The kill storm, and what it leaves behind.
kill_storm() {
    aside storm "a storm of 500 kills, then rmmod" \
        "$REPO/scripts/storm" "${KERNEL_FLAGS[@]}" --ktap --timeout 2400 --kernel "$KERNEL" --module "$MODULE" --bin "$BIN"
}

# aside NAME TITLE COMMAND...: what prints KTAP and starts guests itself, while the rest
# goes on: one guest leaves processors idle.  Shown and counted by join_asides.
ASIDES=()
aside() {
    local name=$1
    say "  $2 (beside the others)"
    shift 2
    timed "$RESULTS/$name" "$@" >"$RESULTS/$name.ktap" 2>&1 &
    ASIDES+=("$name" "$!")
}

# timed FILE COMMAND...: writes to FILE.time how long it took, to FILE.status with what.
timed() {
    local file=$1 start=$SECONDS rc=0
    shift
    "$@" || rc=$?
    elapsed "$start" >"$file.time"
    echo "$rc" >"$file.status"
}

join_asides() {
    local name pid rc
    set -- "${ASIDES[@]}"
    while (($#)); do
        name=$1 pid=$2
        shift 2
        # Of the status itself the shell knows nothing any more if another child has had that pid since.
        wait "$pid" || true
        rc=$(cat "$RESULTS/$name.status" 2>/dev/null || echo 125)
        say "  $name (after $(cat "$RESULTS/$name.time" 2>/dev/null || echo '?'), with the wait for a processor)"
        sed 's/^/  | /' "$RESULTS/$name.ktap"
        count_planned "$name" "$rc"
    done
    ASIDES=()
}

# count_planned NAME STATUS: adds the results of a script that ended with STATUS,
# and a failure if they are fewer than it had said.
count_planned() {
    local name=$1 rc=$2 planned
    count_ktap "$RESULTS/$name.ktap"
    planned=$(sed -n 's/^1\.\.\([0-9]\+\).*/\1/p' "$RESULTS/$name.ktap" | head -n 1)
    if ((rc == 4)); then
        SKIPPED=$((SKIPPED + 1))
    elif ((${#KTAP_NAMES[@]} < ${planned:-1})); then
        failed "$name (status $rc after ${#KTAP_NAMES[@]} of ${planned:-?} results)"
    elif ((rc)) && ! grep -q '^not ok ' "$RESULTS/$name.ktap"; then
        failed "$name (status $rc, and no result says why)"
    fi
}
