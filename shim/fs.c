// SPDX-License-Identifier: GPL-2.0
#include <linux/fs.h>
#include <linux/file.h>
#include <linux/fileattr.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>

struct file *ondemand_shim_get_file(struct file *file)
{
	return get_file(file);
}

struct inode *ondemand_shim_file_inode(const struct file *file)
{
	return file_inode(file);
}

struct dentry *ondemand_shim_file_path_dentry(const struct file *file)
{
	return file->f_path.dentry;
}

struct inode *ondemand_shim_d_inode(const struct dentry *dentry)
{
	return d_inode(dentry);
}

bool ondemand_shim_d_is_negative(const struct dentry *dentry)
{
	return d_is_negative(dentry);
}

bool ondemand_shim_d_is_reg(const struct dentry *dentry)
{
	return d_is_reg(dentry);
}

bool ondemand_shim_d_is_dir(const struct dentry *dentry)
{
	return d_is_dir(dentry);
}

bool ondemand_shim_d_can_lookup(const struct dentry *dentry)
{
	return d_can_lookup(dentry);
}

bool ondemand_shim_d_unhashed(const struct dentry *dentry)
{
	return d_unhashed(dentry);
}

bool ondemand_shim_d_mountpoint(const struct dentry *dentry)
{
	return d_mountpoint(dentry);
}

struct dentry *ondemand_shim_dget(struct dentry *dentry)
{
	return dget(dentry);
}

void ondemand_shim_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

void ondemand_shim_inode_lock_parent(struct inode *inode)
{
	inode_lock_nested(inode, I_MUTEX_PARENT);
}

void ondemand_shim_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

loff_t ondemand_shim_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

void ondemand_shim_filemap_invalidate_lock(struct address_space *mapping)
{
	filemap_invalidate_lock(mapping);
}

void ondemand_shim_filemap_invalidate_unlock(struct address_space *mapping)
{
	filemap_invalidate_unlock(mapping);
}

unsigned long ondemand_shim_rlimit(unsigned int limit)
{
	return rlimit(limit);
}

bool ondemand_shim_sb_rdonly(const struct super_block *sb)
{
	return sb_rdonly(sb);
}

bool ondemand_shim_user_backed_iter(const struct iov_iter *iter)
{
	return user_backed_iter(iter);
}

size_t ondemand_shim_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

void ondemand_shim_sync_filesystem_locked(struct super_block *sb, int *result)
{
	down_read(&sb->s_umount);
	*result = sync_filesystem(sb);
	up_read(&sb->s_umount);
}

int ondemand_shim_fileattr_flags(struct dentry *dentry, u32 *flags)
{
	struct file_kattr attributes = {};
	int ret = vfs_fileattr_get(dentry, &attributes);

	*flags = attributes.flags;
	return ret;
}

struct mnt_idmap *ondemand_shim_no_idmap(void)
{
	return &nop_mnt_idmap;
}
