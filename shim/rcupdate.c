// SPDX-License-Identifier: GPL-2.0
#include <linux/rcupdate.h>

void ondemand_shim_wait_for_rcu_tasks(void)
{
	synchronize_rcu_tasks();
}
