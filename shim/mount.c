// SPDX-License-Identifier: GPL-2.0
#include <linux/fs.h>
#include <linux/mount.h>

bool ondemand_shim_is_idmapped_mnt(const struct vfsmount *mnt)
{
	return is_idmapped_mnt(mnt);
}
