// SPDX-License-Identifier: GPL-2.0
#include <linux/buffer_head.h>

struct buffer_head *ondemand_shim_sb_bread(struct super_block *sb, u64 block)
{
	return sb_bread(sb, block);
}

const char *ondemand_shim_buffer_data(const struct buffer_head *buffer)
{
	return buffer->b_data;
}

void ondemand_shim_brelse(struct buffer_head *buffer)
{
	brelse(buffer);
}
