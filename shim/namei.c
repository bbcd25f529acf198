// SPDX-License-Identifier: GPL-2.0
#include <linux/dcache.h>
#include <linux/fs.h>
#include <linux/namei.h>

struct dentry *ondemand_shim_lookup_noperm(const char *name, struct dentry *dir, int len)
{
	return lookup_noperm(&QSTR_LEN(name, len), dir);
}

struct dentry *ondemand_shim_lookup_noperm_positive_unlocked(const char *name, struct dentry *dir,
							     int len)
{
	return lookup_noperm_positive_unlocked(&QSTR_LEN(name, len), dir);
}

/* Keeps the caller's reference to the dentry, and returns another one, maybe to another dentry. */
struct dentry *ondemand_shim_mkdir(struct inode *dir, struct dentry *dentry, umode_t mode)
{
	return ondemand_vfs_mkdir(&nop_mnt_idmap, dir, dget(dentry), mode);
}

int ondemand_shim_rename(struct dentry *old_parent, struct dentry *old_dentry,
			 struct dentry *new_parent, struct dentry *new_dentry)
{
	return ondemand_vfs_rename(old_parent, old_dentry, new_parent, new_dentry);
}

#ifdef ONDEMAND_START_RENAMING
int ondemand_shim_start_renaming(struct renamedata *rename, struct dentry *dentry, const char *name,
				 int len)
{
	return start_renaming_dentry(rename, 0, dentry, &QSTR_LEN(name, len));
}
#endif
