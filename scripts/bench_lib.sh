# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154
#
# What scripts/bench and scripts/profile share: how what they run is built, and how
# it is run in a virtual machine.  To be sourced after lib.sh; $RESULTS is where it
# all goes, $LOG the console log.

# build_for_bench: sets up and builds all, but for $MODULE if that is set; empties
# $RESULTS; sets MODULE, KERNEL, IMAGES and BIN, the directory of ondemand-bench and both modules.
build_for_bench() {
    "$REPO/scripts/setup" --without-tests
    "$REPO/scripts/kernel/build"
    KERNEL=$("$REPO/scripts/kernel/build" --path)
    if [[ -z ${MODULE:-} ]]; then
        phase module "module" make -C "$REPO" --no-print-directory KDIR="$KERNEL" module
        MODULE=$REPO/cachefiles_ondemand.ko
    fi
    phase user "ondemand-bench (release build)" \
        build_programs ondemand-bench

    # Copies, so that a build beside this does not change what runs.
    BIN=$RESULTS/bin
    rm -rf "$RESULTS"
    mkdir -p "$BIN"
    cp "$PROGRAMS/ondemand-bench" "$KERNEL/fs/cachefiles/cachefiles.ko" "$BIN/"
    cp "$MODULE" "$BIN/cachefiles_ondemand.ko"

    # Made once, on the host: the guest has other things to do.
    phase images-bench "images" "$REPO/scripts/images" "$BIN/ondemand-bench" bench
    IMAGES=$(tail -n 1 "$LOGS/images-bench.log")
}

# bench_in_guest OPTION...: ondemand-bench with these options, in a virtual machine with the
# options $GUEST_FLAGS; what it prints is shown and kept in $RESULTS/output.
bench_in_guest() {
    local command start=$SECONDS rc=0
    say "  virtual machine: booting"
    command=$(printf '%q ' "$BIN/ondemand-bench" run --c-module "$BIN/cachefiles.ko" \
        --our-module "$BIN/cachefiles_ondemand.ko" --images "$IMAGES" "$@")
    # shellcheck disable=SC2016 # the guest's shell does that
    "$REPO/scripts/vm/run" "${GUEST_FLAGS[@]}" --kernel "$KERNEL" --backend none \
        --results "$RESULTS" --log "$LOG" -- \
        bash -c "$command"'--disk $ONDEMAND_DISK --results $ONDEMAND_RESULTS' 2>&1 |
        tee "$RESULTS/output" || rc=$?
    say "  virtual machine: $(elapsed "$start"); console log $LOG"
    return "$rc"
}
