/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the module needs of the kernel and kernel::bindings lacks; bindgen turns
 * it into bindings_generated.rs.
 */

#include <linux/anon_inodes.h>
#include <linux/fadvise.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/fileattr.h> /* wants fs.h before it */
#include <linux/fscache-cache.h>
#include <linux/jiffies.h>
#include <linux/miscdevice.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/netfs.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/statfs.h>
#include <linux/vmalloc.h>
#include <linux/xattr.h>
#include "../abi/cachefiles.h"

/* Macros that bindgen cannot read. */
const unsigned int ONDEMAND_FMODE_PWRITE = (unsigned int)FMODE_PWRITE;
const unsigned int ONDEMAND_FMODE_LSEEK = (unsigned int)FMODE_LSEEK;
const unsigned int ONDEMAND_EPOLLIN = (unsigned int)(EPOLLIN | EPOLLRDNORM);
const unsigned int ONDEMAND_EPOLLOUT = (unsigned int)(EPOLLOUT | EPOLLWRNORM);
const int ONDEMAND_IOCB_DIRECT_FLAG = IOCB_DIRECT;
const int ONDEMAND_IOCB_WRITE_FLAG = IOCB_WRITE;
const unsigned int ONDEMAND_S_KERNEL_FILE_FLAG = S_KERNEL_FILE;
const unsigned int ONDEMAND_READ_COMPLETE = CACHEFILES_IOC_READ_COMPLETE;
const unsigned int ONDEMAND_SIZEOF_MSG = sizeof(struct cachefiles_msg);
const unsigned int ONDEMAND_SIZEOF_OPEN = sizeof(struct cachefiles_open);
const unsigned int ONDEMAND_SIZEOF_READ = sizeof(struct cachefiles_read);
const int ONDEMAND_FADV_DONTNEED = POSIX_FADV_DONTNEED;
const int ONDEMAND_FADV_RANDOM = POSIX_FADV_RANDOM;
const int ONDEMAND_PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
const unsigned int ONDEMAND_XA_PRESENT = (__force unsigned int)XA_PRESENT;
const unsigned int ONDEMAND_TICKS_A_SECOND = HZ;
const int ONDEMAND_MISC_MINOR = MISC_DYNAMIC_MINOR;
const unsigned int ONDEMAND_LOOKUP_DIRECTORY_FLAG = LOOKUP_DIRECTORY;
