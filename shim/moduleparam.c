// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include <linux/moduleparam.h>

/* The word for it in the module! of the kernel crate has changed. */
MODULE_AUTHOR("The cachefiles_ondemand developers");

static char *device_name = "cachefiles";
module_param(device_name, charp, 0444);
MODULE_PARM_DESC(device_name, "Name of the device below /dev, to load beside a kernel that has cachefiles already (default: cachefiles)");

const char *ondemand_shim_device_name(void)
{
	return device_name;
}
