// SPDX-License-Identifier: GPL-2.0
#include <linux/jiffies.h>

u64 ondemand_shim_get_jiffies_64(void)
{
	return get_jiffies_64();
}
