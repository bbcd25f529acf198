// SPDX-License-Identifier: GPL-2.0
#include <linux/cred.h>

void ondemand_shim_put_cred(const struct cred *cred)
{
	put_cred(cred);
}
