/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions of newer kernels for older ones, and one form for what has several. Kbuild looks for what the
 * kernel declares. The release at each says when it can go: when nothing before that is built for.
 */
#include <linux/dcache.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/fileattr.h> /* wants fs.h before it */
#include <linux/namei.h>

/* 6.15 */
#ifndef QSTR_LEN
#define QSTR_LEN(n, l) (struct qstr)QSTR_INIT(n, l)
#endif

/* 6.16 */
#ifndef ONDEMAND_LOOKUP_NOPERM
#define lookup_noperm(q, dir) lookup_one_len((q)->name, dir, (q)->len)
#define lookup_noperm_positive_unlocked(q, dir) lookup_positive_unlocked((q)->name, dir, (q)->len)
#endif

/* 6.17 */
#ifndef ONDEMAND_FILE_KATTR
#define file_kattr fileattr
#endif

/*
 * 6.19: as in 6.15 to 6.18, the function takes the caller's reference and returns one, or an error. After an
 * error it has unlocked the directory since 6.19, which the caller still has locked here.
 */
static inline struct dentry *ondemand_vfs_mkdir(struct mnt_idmap *idmap, struct inode *dir,
						struct dentry *dentry, umode_t mode)
{
#if defined(ONDEMAND_END_CREATING)
	struct dentry *made = vfs_mkdir(idmap, dir, dentry, mode, NULL);

	if (IS_ERR(made))
		inode_lock_nested(dir, I_MUTEX_PARENT);
	return made;
#elif defined(ONDEMAND_MKDIR_DENTRY)
	return vfs_mkdir(idmap, dir, dentry, mode);
#else
	int ret = vfs_mkdir(idmap, dir, dentry, mode);

	if (!ret)
		return dentry;
	dput(dentry);
	return ERR_PTR(ret);
#endif
}

/* 6.18 */
static inline int ondemand_vfs_rename(struct dentry *old_parent, struct dentry *old_dentry,
				      struct dentry *new_parent, struct dentry *new_dentry)
{
	struct renamedata rename = {
		.old_dentry = old_dentry,
		.new_dentry = new_dentry,
#ifdef ONDEMAND_RENAME_TWO_IDMAPS
		.old_mnt_idmap = &nop_mnt_idmap,
		.new_mnt_idmap = &nop_mnt_idmap,
#else
		.mnt_idmap = &nop_mnt_idmap,
#endif
#ifdef ONDEMAND_RENAME_PARENTS
		.old_parent = old_parent,
		.new_parent = new_parent,
#else
		.old_dir = d_inode(old_parent),
		.new_dir = d_inode(new_parent),
#endif
	};

	return vfs_rename(&rename);
}
