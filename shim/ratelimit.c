// SPDX-License-Identifier: GPL-2.0
#include <linux/ratelimit.h>

static DEFINE_RATELIMIT_STATE(read_errors, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST);

bool ondemand_shim_ratelimit(void)
{
	return __ratelimit(&read_errors);
}
