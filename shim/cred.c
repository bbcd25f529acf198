// SPDX-License-Identifier: GPL-2.0
#include <linux/cred.h>

const struct cred *ondemand_shim_override_creds(const struct cred *cred)
{
	return override_creds(cred);
}

void ondemand_shim_revert_creds(const struct cred *saved)
{
	revert_creds(saved);
}

void ondemand_shim_put_cred(const struct cred *cred)
{
	put_cred(cred);
}
