# SPDX-License-Identifier: GPL-2.0
#
# The front door.  `make` builds the module alone; kbuild itself reads Kbuild,
# never this file.  `make help` lists the rest.
#
#   KDIR        the kernel's build directory (default: the cached test kernel if
#               it is built, else that of the running kernel)
#   KERNEL_SOURCE   the source of the kernel in KDIR, if that has no Rust (default: Debian's
#               /usr/src/linux-source-X.Y.tar.xz)
#   LLVM        as for the kernel: -19, 1, or empty for one that gcc has built
#               (default: found out from KDIR)
#   RUSTC, BINDGEN, CLIPPY_DRIVER ...   other tools than Debian's
#   CLIPPY=1    lint while building
#   KVER        make uninstall: the kernel's release, where KDIR is gone
#   DESTDIR     make install into this tree instead of /, for packages
#   PREFIX, SBINDIR, UNITDIR, SYSCONFDIR, MODPROBEDIR, INSTALL_MOD_PATH   where make
#               install puts man pages and the like (/usr/local), daemon (PREFIX/sbin), unit
#               (PREFIX/lib/systemd/system), its configuration (/etc/ondemandd), snippet
#               (/lib/modprobe.d), module (DESTDIR)
#   TESTS="..."   names for make test, test-debug and test-c (default: all; scripts/test --help)
#   HOURS=N     make soak: how long (1); SEED=N: all other seeds are drawn from it
#   FUZZ_TIME   seconds for each target of make fuzz (default: 60)
#   KILLS=N     make storm: how often the daemon is killed (500)
#   QUICK=1     make bench: three pairs and small sizes, about five minutes
#   COUNT=1     make bench: with a clock that counts instructions, see scripts/bench
#   SCENARIOS="..." PAIRS=N MODES="..." FILL=BYTES   make bench: see scripts/bench; make profile: but FILL
#   KERNEL      make demo: stock (Debian's own, the default), rust (the test kernel, built
#               here), debug (the debug kernel)
#   BACKEND=c   make demo against the kernel's own cachefiles, for comparison (without its compressed image)

SHELL := /bin/bash
.DEFAULT_GOAL := module

XDG_CACHE_HOME ?= $(HOME)/.cache
KDIR ?= $(or $(shell scripts/kernel/build --path),/lib/modules/$(shell uname -r)/build)

ifeq ($(origin LLVM),undefined)
LLVM := $(shell scripts/kdir-llvm "$(KDIR)")
endif
RUSTC         ?= /usr/bin/rustc
RUSTDOC       ?= /usr/bin/rustdoc
RUSTFMT       ?= /usr/bin/rustfmt
CLIPPY_DRIVER ?= /usr/bin/clippy-driver
BINDGEN       ?= $(or $(wildcard $(XDG_CACHE_HOME)/cachefiles_ondemand/tools/bindgen-0.72.1/bin/bindgen),\
	$(wildcard /usr/lib/cachefiles-ondemand/bindgen),$(wildcard $(HOME)/.cargo/bin/bindgen),bindgen)
BACKEND       ?= rust
PREFIX        ?= /usr/local
SBINDIR       ?= $(PREFIX)/sbin
UNITDIR       ?= $(PREFIX)/lib/systemd/system
SYSCONFDIR    ?= /etc
MODPROBEDIR   ?= /lib/modprobe.d
INSTALL_MOD_PATH ?= $(DESTDIR)
CARGO_TARGET_DIR ?= user/target
DAEMON        ?= $(CARGO_TARGET_DIR)/$(shell uname -m)-unknown-linux-gnu/release/ondemandd
TESTS         ?=
FUZZ_TIME     ?= 60
KILLS         ?= 500
QUICK         ?=

TOOLS = LLVM=$(LLVM) RUSTC=$(RUSTC) HOSTRUSTC=$(RUSTC) RUSTDOC=$(RUSTDOC) RUSTFMT=$(RUSTFMT) \
	CLIPPY_DRIVER=$(CLIPPY_DRIVER) BINDGEN=$(BINDGEN)

# Where kbuild runs: in KDIR, or, if that kernel has no Rust, in a tree beside it that has.
TREE = $(if $(shell grep -sx CONFIG_RUST=y "$(KDIR)/include/config/auto.conf"),$(KDIR),$(RUST_TREE))
RUST_TREE ?= $(CURDIR)/results/rust-tree

# Two builds of one tree at a time would spoil each other's objects.
TREE_MAKE = flock .build.lock $(MAKE) --no-print-directory -C $(TREE) $(TOOLS)
IN_TREE = +@$(TREE_MAKE)
KBUILD = $(IN_TREE) M=$(CURDIR)

.PHONY: possible tree module
possible: ## say in one line what is missing before a module can be built for KDIR
	@scripts/check-kdir "$(KDIR)" "$(LLVM)" "$(RUSTC)" "$(BINDGEN)"
	@[[ "$(TREE)" == "$(KDIR)" ]] || scripts/kernel/rust-tree --check "$(KDIR)" "$(RUSTC)"
tree: possible
	@[[ "$(TREE)" == "$(KDIR)" ]] || scripts/kernel/rust-tree "$(KDIR)" "$(TREE)" "$(RUSTC)"
module: tree ## build cachefiles_ondemand.ko against KDIR
	$(KBUILD) -j$(shell nproc) modules

.PHONY: erofs modules
EROFS = $(TREE)/erofs/erofs.ko
MAKE_EROFS = $(TREE_MAKE) M=$(TREE)/erofs -j$(shell nproc) \
	CONFIG_EROFS_FS_ONDEMAND=y KCFLAGS=-DCONFIG_EROFS_FS_ONDEMAND=1 modules
erofs: module ## where KDIR's kernel has erofs without the on-demand mode: build one with it, of the kernel's source
	@[[ -e "$(TREE)/erofs/Makefile" ]] || { echo "$(KDIR) needs no other erofs.ko, or is a kernel with Rust, whose source has it" >&2; exit 1; }
	+@$(MAKE_EROFS)
	@echo "$(EROFS)"
modules: module ## the module and, if KDIR's kernel needs another erofs, that
	+@[[ ! -e "$(TREE)/erofs/Makefile" ]] || $(MAKE_EROFS)

.PHONY: daemon all
daemon: ## build ondemandd
	@scripts/programs ondemandd
all: modules daemon ## what make install wants

.PHONY: install uninstall dkms deb
install: ## install module, modprobe.d snippet, daemon, its unit and man pages (root; after make all)
	+@$(INSTALL_ENV) MODULES_INSTALL='$(MODULES_INSTALL)' scripts/install install
uninstall: ## remove what make install has installed (root)
	@$(INSTALL_ENV) scripts/install uninstall
dkms: ## put the module's source below /usr/src, for dkms install (root)
	@$(INSTALL_ENV) scripts/install dkms

deb: ## Debian packages of daemon, module and its source, in results/deb (after make all)
	+@$(INSTALL_ENV) MODULES_INSTALL='$(MODULES_INSTALL)' scripts/deb

INSTALL_ENV = EROFS='$(EROFS)' KDIR='$(KDIR)' KVER='$(KVER)' DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SBINDIR='$(SBINDIR)' \
	UNITDIR='$(UNITDIR)' SYSCONFDIR='$(SYSCONFDIR)' MODPROBEDIR='$(MODPROBEDIR)' INSTALL_MOD_PATH='$(INSTALL_MOD_PATH)' DAEMON='$(DAEMON)'
# A distribution's headers are without the key that its own modules are signed with.
MODULES_INSTALL = $(MAKE) --no-print-directory -C $(TREE) M=$(CURDIR) $(TOOLS) \
	$(if $(filter-out $(KDIR),$(TREE)),CONFIG_MODULE_SIG_ALL= CONFIG_MODULE_COMPRESS_ALL= INSTALL_MOD_STRIP=1) modules_install

.PHONY: rust-analyzer
rust-analyzer: tree ## write rust-project.json for editors
	$(KBUILD) rust-analyzer

.PHONY: setup
setup: ## install what a bare Debian 12 lacks (packages, bindgen, virtme-ng)
	@scripts/setup

.PHONY: kernel kernel-debug kernel-stores
kernel: ## build the test kernel, once
	@scripts/kernel/build
kernel-debug: ## build the debug kernel (KASAN, lockdep ...), once
	@scripts/kernel/build --debug
kernel-stores: ## build the kernel with more disks and file systems, once
	@scripts/kernel/build --stores

# Debian's own kernel, unless the backend is the C module, which is not in it.
DEMO_KERNEL = $(or $(KERNEL_IS_$(or $(KERNEL),$(if $(filter c,$(BACKEND)),rust,stock))),\
	$(error KERNEL is stock, rust or debug, not $(KERNEL)))
KERNEL_IS_stock = --stock
KERNEL_IS_rust = --rust
KERNEL_IS_debug = --debug

.PHONY: demo
demo: ## set everything up, boot, read two images while the daemon is being killed; KERNEL=stock, rust or debug
	@scripts/demo --backend $(BACKEND) $(DEMO_KERNEL)

.PHONY: storm
storm: ## KILLS=500: kill the daemon so often while eight images are read; a plot of the gaps
	@scripts/storm --kills $(KILLS)

.PHONY: bench profile
bench: ## measure it beside the kernel's own cachefiles; QUICK=1: in five minutes
	@scripts/bench $(if $(filter-out 0,$(QUICK)),--quick) $(if $(SCENARIOS),--scenarios "$(SCENARIOS)") \
		$(if $(PAIRS),--pairs "$(PAIRS)") $(if $(filter-out undefined,$(origin MODES)),--modes "$(MODES)") \
		$(if $(FILL),--fill "$(FILL)") $(if $(filter-out 0,$(COUNT)),--count)
profile: ## where its instructions go, beside the kernel's own cachefiles; SCENARIOS= MODES= PAIRS=
	@scripts/profile $(if $(SCENARIOS),--scenarios "$(SCENARIOS)") $(if $(PAIRS),--pairs $(PAIRS)) \
	    $(if $(MODES),--modes "$(MODES)")

.PHONY: boot
boot: ## boot a machine whose root is EROFS over fscache; a shell to kill the daemon from
	@scripts/boot

.PHONY: shell
shell: module ## a shell in the test machine (this machine's files, the module loaded)
	@scripts/vm/run --interactive --timeout 86400 -- bash -i

# What runs the tests is Python, which a bare machine may lack.
PYTHON_IS_THERE = command -v python3 >/dev/null || scripts/setup

.PHONY: test test-debug test-faults test-stores test-c soak soak-state
test: ## what each change is tested with: host tests, lints, checks, all selftests, the demo, the daemon
	@$(PYTHON_IS_THERE) && scripts/test $(TESTS)
test-debug: ## selftests and a kill storm on the debug kernel (KASAN, lockdep, kmemleak), the fuzzers
	@$(PYTHON_IS_THERE) && scripts/test --debug $(TESTS)
test-faults: ## each allocation and each disk request of a cache fails once, debug kernel; goes on where it was cut off
	@$(PYTHON_IS_THERE) && scripts/test --missing faults faults-more
test-stores: ## a store on each file system, on virtio-blk, SCSI and NVMe; goes on where it was cut off
	@$(PYTHON_IS_THERE) && scripts/test --missing stores
test-c: ## the selftests against the kernel's own cachefiles, for comparison
	@$(PYTHON_IS_THERE) && scripts/test --backend c $(TESTS)

soak: ## HOURS=1: everything whole, what has run least recently first, failures first of all
	@$(PYTHON_IS_THERE) && scripts/soak $(if $(HOURS),--hours $(HOURS)) $(if $(SEED),--seed $(SEED))
soak-state: ## when each part last ran whole, on which commit, what was counted, what has failed
	@scripts/soak --state

.PHONY: fuzz
fuzz: ## fuzz the pure files, FUZZ_TIME seconds a target
	@scripts/fuzz --seconds $(FUZZ_TIME)

.PHONY: model
model: ## explore every order of events of the request table, the large scopes, too
	@PATH=/usr/bin:$$PATH cargo run --locked --manifest-path user/Cargo.toml -p ondemand-model -- --large

.PHONY: check
check: ## the rings, SAFETY comments, licences, file lengths, formatting
	@scripts/check

.PHONY: clean
clean: ## remove what was built here (not the cache)
	@if [ -e "$(KDIR)/Makefile" ]; then \
		$(MAKE) --no-print-directory -C $(KDIR) M=$(CURDIR) $(TOOLS) clean; fi
	@rm -f .build.lock rust-project.json

.PHONY: help
help: ## this list
	@echo 'Targets (variables: see the head of the Makefile):'
	@sed -n 's/^\([a-z -]*\):[^#=]*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r t d; do printf '  %-15s %s\n' "$$t" "$$d"; done
