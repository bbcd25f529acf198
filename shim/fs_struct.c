// SPDX-License-Identifier: GPL-2.0
#include <linux/fs_struct.h>
#include <linux/sched.h>

void ondemand_shim_get_current_pwd(struct path *pwd)
{
	get_fs_pwd(current->fs, pwd);
}
