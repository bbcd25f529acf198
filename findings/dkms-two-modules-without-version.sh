#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# DKMS does not install a module over the kernel's own one if neither has a
# MODULE_VERSION, although their srcversions differ: it reports that the versions match
# exactly. If either has a version, it installs.
#
# Seen:    dkms 3.0.10 (Debian 12): "Module version  for erofs.ko exactly matches
#          what is already found in kernel ...", and the kernel's own module stays;
#          with a version in ours, "Installing to .../updates/dkms/"
# Why:     compare_module_version() compares the versions first, and two empty ones
#          are equal. srcversion only chooses between "=" and "==", which the install
#          step treats alike.
# Matters: few modules of the kernel have a version; erofs has none. DKMS builds
#          the changed module of a package, and never uses it. Our erofs has the
#          version of the kernel's package and "+ondemand".
#
# The modules are objects that have only what modinfo reads. Needs apt-get, dpkg, cc,
# kmod; root, or user namespaces. Exit status: 0 as described, 1 not any more, 2 it
# cannot be tried here.
set -euo pipefail

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK"
apt-get -qq download 'dkms=3.0.10-*' || { echo "apt has no dkms 3.0.10"; exit 2; }
dpkg -x dkms_*.deb root
AS_ROOT=()
(($(id -u) == 0)) || AS_ROOT=(unshare --user --map-root-user)
"${AS_ROOT[@]}" true || { echo "neither root nor user namespaces"; exit 2; }

KVER=6.12.0-none
# module FILE WORD...: a module with these words for modinfo.
module() {
    local file=$1 number=0 word
    shift
    for word; do
        printf 'static const char m%d[] __attribute__((section(".modinfo"), used)) = "%s";\n' "$((number++))" "$word"
    done >module.c
    cc -c -o "$file" module.c
}
mkdir -p modules/$KVER/kernel/fs/erofs src/erofs-1 kernel/include/config
module modules/$KVER/kernel/fs/erofs/erofs.ko license=GPL srcversion=AAAA
touch kernel/.config
cat >src/erofs-1/dkms.conf <<'CONF'
PACKAGE_NAME=erofs
PACKAGE_VERSION=1
BUILT_MODULE_NAME[0]=erofs
DEST_MODULE_LOCATION[0]=/updates
MAKE[0]=true
CLEAN=true
CONF

# install WORD...: has DKMS build and install a module with these words; prints what DKMS says.
install() {
    rm -rf dkms modules/$KVER/updates
    mkdir dkms
    module src/erofs-1/erofs.ko license=GPL srcversion=BBBB "$@"
    local words=(--dkmstree "$WORK/dkms" --sourcetree "$WORK/src" --installtree "$WORK/modules" -m erofs -v 1 -k "$KVER")
    "${AS_ROOT[@]}" bash root/usr/sbin/dkms add "${words[@]}" 2>&1 &&
        "${AS_ROOT[@]}" bash root/usr/sbin/dkms build "${words[@]}" --kernelsourcedir "$WORK/kernel" 2>&1 &&
        "${AS_ROOT[@]}" bash root/usr/sbin/dkms install "${words[@]}" --no-depmod 2>&1
}
installed() { [[ -n $(find modules/$KVER/updates -name 'erofs.ko*' 2>/dev/null) ]]; }

rc=0
install >without 2>&1 || true
grep 'exactly matches' without || rc=1
if installed; then rc=1; fi
install version=1 >with 2>&1 || true
grep -i 'installing to' with || rc=1
installed || rc=1
((rc == 0)) || { cat without with; echo "not as described any more"; }
exit "$rc"
