// SPDX-License-Identifier: GPL-2.0
#include <linux/ioprio.h>

int ondemand_shim_get_current_ioprio(void)
{
	return get_current_ioprio();
}
