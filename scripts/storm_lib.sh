# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# What scripts/demo and scripts/storm share: how what they run is built, and how
# it is put into a virtual machine.  To be sourced after lib.sh.

# shown: the standard output, as comments of KTAP if that is asked for.
shown() { if ((KTAP)); then sed -u 's/^/# /'; else cat; fi; }

# build_for_storm PROFILE BACKEND [--debug | --stock]: sets up and builds all; sets KERNEL, MODULE and
# BIN, the directory of storm and ondemandd.  If these are set, that is taken.
build_for_storm() {
    local profile=$1 backend=$2 features=()
    shift 2
    # Only `storm kills` draws plots, and nobody looks at `ondemandd top` in the demo.
    [[ $profile == release ]] || features=(--no-default-features)
    if [[ -n $KERNEL$MODULE$BIN ]]; then
        [[ -d $KERNEL && -s $MODULE && -x $BIN/storm ]] || die "--kernel, --module and --bin go together"
        return
    fi
    "$REPO/scripts/setup" --without-tests
    if [[ ${1:-} == --stock ]]; then
        [[ $backend == rust ]] || die "Debian's kernel has no on-demand mode in its cachefiles: KERNEL=rust has"
        "$REPO/scripts/kernel/stock"
        KERNEL=$("$REPO/scripts/kernel/stock" --path)
        phase module-stock "module, and erofs with the on-demand mode" "$REPO/scripts/kernel/stock" --modules
        MODULE=$(tail -n 1 "$LOGS/module-stock.log")
    else
        build_kernel_and_module "$backend" "$@"
    fi
    phase user "daemon and storm ($profile build)" build_profile "$profile" "${features[@]}" ondemandd storm
    BIN=$CARGO_OUTPUT/$PROGRAM_TARGET/$profile
}

# build_kernel_and_module BACKEND [--debug]: the test kernel, and the module for it; sets KERNEL and MODULE.
build_kernel_and_module() {
    local backend=$1
    shift
    "$REPO/scripts/kernel/build" "$@"
    KERNEL=$("$REPO/scripts/kernel/build" "$@" --path)
    MODULE=$REPO/cachefiles_ondemand.ko
    if [[ $backend == rust ]] && (($# == 0)); then
        phase module "module" make -C "$REPO" --no-print-directory KDIR="$KERNEL" module
    elif [[ $backend == rust ]]; then
        phase module-debug "module" "$REPO/scripts/module-copy" "$KERNEL"
        MODULE=$(tail -n 1 "$LOGS/module-debug.log")
    fi
}

# images_for_storm SET: makes the images of scripts/images; sets IMAGES.
images_for_storm() {
    phase "images-$1" "images" "$REPO/scripts/images" "$BIN/storm" "$1"
    IMAGES=$(tail -n 1 "$LOGS/images-$1.log")
}

# freeze_for_storm BACKEND: empties $RESULTS and puts copies of what runs there, so
# that a build beside the storm does not change it.
freeze_for_storm() {
    rm -rf "$RESULTS"
    mkdir -p "$RESULTS/bin"
    cp "$BIN/storm" "$BIN/ondemandd" "$RESULTS/bin/"
    BIN=$RESULTS/bin
    [[ $1 != rust ]] || cp "$MODULE" "$BIN/cachefiles_ondemand.ko"
    MODULE=$BIN/cachefiles_ondemand.ko
}

# storm_command WORD...: the command line of storm in the guest, which ends with
# what the guest alone knows.
storm_command() {
    printf '%q ' "$BIN/storm" "$@"
    # shellcheck disable=SC2016 # the guest's shell does that
    printf '%s' '--run-dir /run/ondemand/daemon --results $ONDEMAND_RESULTS '
}
