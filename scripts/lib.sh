# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# What all scripts here share: where things live, how progress and failures
# are shown.  To be sourced.  Everything that is downloaded or built outside the
# repository is below one directory, $CACHE, and nothing there needs root.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/cachefiles_ondemand
LOGS=${LOGS:-$CACHE/logs}

# Kernel, module and user space are built by one Rust, Debian's; another one
# earlier in PATH (rustup) must not get in, so /usr/bin always comes first.
PATH=/usr/bin:/usr/sbin:/bin:/sbin:$PATH
export PATH
unset RUSTUP_TOOLCHAIN RUSTC_WRAPPER

BINDGEN_VERSION=0.72.1
BINDGEN=$CACHE/tools/bindgen-$BINDGEN_VERSION/bin/bindgen
CARGO_FUZZ_VERSION=0.13.2
CARGO_FUZZ=$CACHE/tools/cargo-fuzz-$CARGO_FUZZ_VERSION/bin/cargo-fuzz
NEXTEST_VERSION=0.9.151
# One that is installed will do: building it takes minutes, and all that is new enough runs tests alike.
NEXTEST=$(command -v cargo-nextest || echo "$CACHE/tools/cargo-nextest-$NEXTEST_VERSION/bin/cargo-nextest")
CARGO_DENY_VERSION=0.20.2
CARGO_DENY=$CACHE/tools/cargo-deny-$CARGO_DENY_VERSION/bin/cargo-deny
VENV=$CACHE/tools/virtme-ng
# Servers for tests: Debian's nginx, unpacked and not installed, for it would begin to serve;
# and a Python that has moto, which speaks S3.
NGINX=$CACHE/tools/nginx/usr/sbin/nginx
MOTO=$CACHE/tools/moto
LLVM_VERSION=19

# How make is called for the kernel and for what is built against it.
KERNEL_MAKE=(make "LLVM=-$LLVM_VERSION" RUSTC=/usr/bin/rustc HOSTRUSTC=/usr/bin/rustc
    RUSTDOC=/usr/bin/rustdoc RUSTFMT=/usr/bin/rustfmt
    CLIPPY_DRIVER=/usr/bin/clippy-driver BINDGEN="$BINDGEN")

# What build_programs makes, and what scripts/test builds for host and guests (user/Cargo.toml
# says what the profile is for).
PROGRAM_TARGET=$(uname -m)-unknown-linux-gnu
CARGO_OUTPUT=${CARGO_TARGET_DIR:-$REPO/user/target}
PROGRAMS=$CARGO_OUTPUT/$PROGRAM_TARGET/release
CHECKED_PROFILE=checked
CHECKED_PROGRAMS=$CARGO_OUTPUT/$PROGRAM_TARGET/$CHECKED_PROFILE
# Linked statically: the dynamic linker is most of what a program's start costs, and a
# worker's start is what its readers wait for (scripts/programs says how much).
PROGRAM_FLAGS="target.$PROGRAM_TARGET.rustflags=['-Ctarget-feature=+crt-static']"

# build_programs PACKAGE...: the release programs of these packages of user/, in $PROGRAMS.
build_programs() { build_profile release "$@"; }

# build_profile PROFILE [--no-default-features] PACKAGE...: the same of another profile:
# $CHECKED_PROFILE, in $CHECKED_PROGRAMS.
build_profile() {
    local profile=$1 features=()
    shift
    [[ ${1:-} != --no-default-features ]] || { features=("$1") && shift; }
    cargo build --profile "$profile" --locked --manifest-path "$REPO/user/Cargo.toml" --target "$PROGRAM_TARGET" \
        --config "$PROGRAM_FLAGS" "${features[@]}" "${@/#/--package=}"
}

# part_of PATH: where PATH is made, to be renamed when it is complete: beside it, or where a run of
# scripts/test removes what it has not finished (scripts/testing/cleanup.py).  One file system.
part_of() { printf '%s' "${ONDEMAND_SCRATCH:-${1%/*}}/${1##*/}.part"; }

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    warn "$*"
    exit 1
}

# elapsed FROM: the seconds since FROM (in $SECONDS) as 12s or 3m05s.
elapsed() {
    local s=$((SECONDS - $1))
    if ((s < 60)); then printf '%ds' "$s"; else printf '%dm%02ds' $((s / 60)) $((s % 60)); fi
}

# as_root COMMAND...: as root, through sudo, or not at all, and then it says
# what has to be run by hand.
as_root() {
    if (($(id -u) == 0)); then
        "$@"
    elif command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        die "this needs root and there is no usable sudo; run this as root, then try again: $*"
    fi
}

# take_lock FILE: holds FILE locked until the script ends; says so if it has to
# wait, and gives up after an hour.
take_lock() {
    local fd
    mkdir -p "${1%/*}"
    exec {fd}>"$1"
    if ! flock -n "$fd"; then
        say "  waiting for another run that holds $1"
        flock -w 3600 "$fd" || die "$1 is still locked after an hour"
    fi
}

# take_processor: waits until fewer guests and the like run on this machine than it
# has processors, whoever has started them, and counts as one more until the script, or
# the subshell, ends with its children.  A guest that has half a processor fails by its own
# deadlines.  Gives up after an hour.  Who comes first has it first: what takes long and is
# started early is not what everybody waits for in the end.
take_processor() {
    local slot slots turn start=$SECONDS
    slots=$(nproc)
    mkdir -p "$CACHE/processors"
    exec {turn}>>"$CACHE/processors/turn"
    flock -w 3600 "$turn" || die "it was not this script's turn within an hour: $CACHE/processors"
    while ((SECONDS - start < 3600)); do
        for ((slot = 0; slot < slots; slot++)); do
            exec {PROCESSOR}>>"$CACHE/processors/$slot"
            if flock -n "$PROCESSOR"; then
                exec {turn}>&-
                return 0
            fi
            exec {PROCESSOR}>&-
        done
        sleep 0.5
    done
    die "all processors are still taken after an hour: $CACHE/processors"
}

# emulation_of KERNEL: sets GUEST_CPU and GUEST_APPEND to the processor and to the end of the command
# line of guests with this kernel, emulated.  The processor's instructions for strings of bytes are
# not said to be fast, for emulated they go byte by byte, and the kernel copies and clears with
# others then.  The kernel is told that the counters of two processors agree, for the emulator reads
# them from one clock: else each look at the time is an access to a device (HPET), a tenth of all that
# a guest takes.  (The debug kernel has no HPET; if it cannot measure its counter, as on a busy host, its
# time has steps of 4 ms.)
emulation_of() {
    GUEST_CPU=max,-erms,-fsrm GUEST_APPEND=' tsc=reliable'
    # With ACPI the debug kernel does not end its boot under TCG.  Of what it takes, a tenth is SMAP,
    # which makes each access to user memory two jumps; guests with the base kernel have it.
    if grep -qx CONFIG_KASAN=y "$1/.config"; then GUEST_CPU+=,-smap GUEST_APPEND+=' acpi=off'; fi
}

# kernel_release DIR: which Linux is in a directory that scripts/vm/run boots.
kernel_release() {
    if [[ -e $1/vmlinuz ]]; then
        basename "$(realpath "$1/headers")" | sed "s/^linux-headers-//; s/\$/, Debian's own/"
    else
        printf '%s, built here\n' "$(<"$1/include/config/kernel.release")"
    fi
}

# The heartbeat of a phase: every few seconds what it is at, in place on a
# terminal and as a line every half minute elsewhere.
heartbeat() {
    local title=$1 log=$2 start=$3 tty=$4 pause=30 last
    ((tty)) && pause=2
    while sleep "$pause"; do
        last=$(tail -n 1 "$log" 2>/dev/null | tr -cd '[:print:]' | cut -c1-60)
        if ((tty)); then
            printf '\r\033[K  %s  %s  %s' "$title" "$(elapsed "$start")" "$last"
        else
            printf '  %s  %s  %s\n' "$title" "$(elapsed "$start")" "$last"
        fi
    done
}

# phase NAME TITLE COMMAND...: runs COMMAND with its output in $LOGS/NAME.log,
# shows that it is alive, and ends with one line.  A failing phase shows its
# last lines and the path of the log, and its status is returned.
#
# COMMAND runs in a background job of its own: errexit works inside a function
# there (it would not in a tested command), and an interrupt reaches all of it.
PHASE_JOBS=()
phase() {
    local title=$2 log=$LOGS/$1.log start=$SECONDS rc=0 tty=0
    shift 2
    mkdir -p "$LOGS"
    : >"$log"
    [[ -t 1 ]] && tty=1
    ((tty)) && printf '  %s' "$title"
    set -m
    (
        set -e
        "$@"
    ) >"$log" 2>&1 </dev/null &
    PHASE_JOBS=("$!")
    heartbeat "$title" "$log" "$start" "$tty" &
    PHASE_JOBS+=("$!")
    set +m
    wait "${PHASE_JOBS[0]}" || rc=$?
    end_job "${PHASE_JOBS[1]}"
    PHASE_JOBS=()
    ((tty)) && printf '\r\033[K'
    if ((rc == 0)); then
        printf '  %-44s ok      %s\n' "$title" "$(elapsed "$start")"
    else
        printf '  %-44s FAILED  %s (status %d)\n' "$title" "$(elapsed "$start")" "$rc"
        say "  --- the last lines of $log:"
        tail -n "${PHASE_TAIL:-25}" "$log" | sed 's/^/  | /'
    fi
    return "$rc"
}

# end_job PID: ends a background job of ours with all its processes.
end_job() {
    kill -- "-$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# shellcheck disable=SC2317 # called by the trap
interrupted() {
    local job
    trap - INT TERM
    for job in "${PHASE_JOBS[@]}"; do end_job "$job"; done
    exit 130
}
trap interrupted INT TERM
