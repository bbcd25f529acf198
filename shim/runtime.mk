# SPDX-License-Identifier: GPL-2.0
#
# For a kernel without CONFIG_RUST, in a tree of scripts/kernel/rust-tree: the kernel's own rust/Makefile
# compiles the Rust support, for a module, and what the module uses of it is linked into the module.
# Nothing of it is exported.

ondemand_rust := core compiler_builtins ffi bindings uapi kernel
ondemand_rust_objects := $(ondemand_rust:%=rust/%.o) rust/helpers/helpers.o

# One make at a time in rust/; what is up to date is not compiled again.  Sections of their own for
# functions let the linker drop those that are not used.
quiet_cmd_ondemand_rust = RUST    $(objtree)/rust
      cmd_ondemand_rust = \
	$(MAKE) -f $(srctree)/scripts/Makefile.build obj=rust KBUILD_EXTMOD= part-of-module=y \
		KBUILD_RUSTFLAGS='$(KBUILD_RUSTFLAGS) -Zfunction-sections=y' \
		KBUILD_CFLAGS='$(KBUILD_CFLAGS) -ffunction-sections' $(ondemand_rust_objects)

PHONY += ondemand_rust
ondemand_rust: FORCE
	+$(call cmd,ondemand_rust)

# What was compiled in another tree is compiled again.
$(obj)/main.o $(obj)/bindings/bindings_generated.rs $(obj)/bindings/shims_generated.rs: $(objtree)/.rust-tree | ondemand_rust

# The kernel crate's printing is the one thing that the kernel has to know Rust for.
quiet_cmd_ondemand_kernel = OBJCOPY $@
      cmd_ondemand_kernel = $(OBJCOPY) --redefine-sym _printk=ondemand_rust_printk $< $@
$(obj)/shim/kernel.o: $(objtree)/rust/kernel.o FORCE
	$(call if_changed,ondemand_kernel)
$(objtree)/rust/kernel.o: ondemand_rust ;

ondemand_parts = $(filter-out rust/kernel.o,$(ondemand_rust_objects)) $(obj)/shim/kernel.o
# What the module refers to is where the linker begins.
quiet_cmd_ondemand_runtime = LD [M]  $@
      cmd_ondemand_runtime = \
	$(LD) $(ld_flags) -r --gc-sections -T $(src)/shim/runtime.lds -o $@ \
		$$($(NM) --undefined-only $(obj)/main.o $(obj)/shim/rust_printk.o | sed -nE 's/^ *U (_R|rust_)/-u \1/p' | sort -u) \
		$(ondemand_parts)
$(obj)/shim/runtime.o: $(obj)/main.o $(obj)/shim/rust_printk.o $(obj)/shim/kernel.o $(src)/shim/runtime.lds FORCE
	$(call if_changed,ondemand_runtime)

targets += shim/kernel.o shim/runtime.o
