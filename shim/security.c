// SPDX-License-Identifier: GPL-2.0
/* lsm_: the functions exist under their own names with CONFIG_SECURITY alone. */
#include <linux/cred.h>
#include <linux/security.h>

int ondemand_shim_lsm_path_mkdir(const struct path *dir, struct dentry *dentry, umode_t mode)
{
	return security_path_mkdir(dir, dentry, mode);
}

int ondemand_shim_lsm_path_unlink(const struct path *dir, struct dentry *dentry)
{
	return security_path_unlink(dir, dentry);
}

int ondemand_shim_lsm_path_rename(const struct path *old_dir, struct dentry *old_dentry,
				       const struct path *new_dir, struct dentry *new_dentry)
{
	return security_path_rename(old_dir, old_dentry, new_dir, new_dentry, 0);
}

int ondemand_shim_lsm_inode_mkdir(struct inode *dir, struct dentry *dentry, umode_t mode)
{
	return security_inode_mkdir(dir, dentry, mode);
}

int ondemand_shim_lsm_inode_create(struct inode *dir, struct dentry *dentry, umode_t mode)
{
	return security_inode_create(dir, dentry, mode);
}

int ondemand_shim_lsm_secctx_to_secid(const char *context, u32 len, u32 *secid)
{
	return security_secctx_to_secid(context, len, secid);
}

void ondemand_shim_lsm_current_getsecid(u32 *secid)
{
	security_cred_getsecid(current_cred(), secid);
}
