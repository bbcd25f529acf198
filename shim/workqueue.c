// SPDX-License-Identifier: GPL-2.0
#include <linux/workqueue.h>

struct workqueue_struct *ondemand_shim_alloc_unbound_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
}

struct workqueue_struct *ondemand_shim_alloc_freezable_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_FREEZABLE | WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
}

void ondemand_shim_init_delayed_work(struct delayed_work *work, work_func_t run)
{
	INIT_DELAYED_WORK(work, run);
}
