// SPDX-License-Identifier: GPL-2.0
#include <linux/xarray.h>

void ondemand_shim_xa_init_alloc(struct xarray *xa)
{
	xa_init_flags(xa, XA_FLAGS_ALLOC);
}

int ondemand_shim_xa_reserve_cyclic(struct xarray *xa, u32 *id, u32 *next)
{
	return xa_alloc_cyclic(xa, id, NULL, xa_limit_32b, next, GFP_KERNEL);
}

bool ondemand_shim_xa_marked(const struct xarray *xa, unsigned int mark)
{
	return xa_marked(xa, (__force xa_mark_t)mark);
}
