/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The user-space interface of /dev/cachefiles in on-demand mode, binary
 * compatible with include/uapi/linux/cachefiles.h of Linux 5.19 to 7.1. It is
 * kept here because newer kernels no longer have that header.
 * docs/protocol.md describes the behaviour.
 */
#ifndef ABI_CACHEFILES_H
#define ABI_CACHEFILES_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* No file system of its own limits the size of a message's key parts to more. */
#define CACHEFILES_MSG_MAX_SIZE	1024

enum cachefiles_opcode {
	CACHEFILES_OP_OPEN,
	CACHEFILES_OP_CLOSE,
	CACHEFILES_OP_READ,
};

/* What read(2) of the device returns: this header, then the opcode's part. */
struct cachefiles_msg {
	__u32 msg_id;		/* names the request in its answer */
	__u32 opcode;		/* enum cachefiles_opcode */
	__u32 len;		/* bytes of the whole message */
	__u32 object_id;	/* new with every opening of an object */
	__u8  data[];
};

/* OPEN; answered with "copen MSG_ID,SIZE" or "copen MSG_ID,-ERRNO". */
struct cachefiles_open {
	__u32 volume_key_size;	/* bytes of the volume key with its NUL */
	__u32 cookie_key_size;	/* bytes of the cookie key, which has no NUL */
	__u32 fd;		/* the anonymous fd that takes the blob's data */
	__u32 flags;		/* none yet: 0 */
	__u8  data[];		/* volume key, then cookie key */
};

/* READ; answered with CACHEFILES_IOC_READ_COMPLETE once the range is written. */
struct cachefiles_read {
	__u64 off;		/* bytes from the start of the blob */
	__u64 len;		/* bytes */
};

/* ioctl of an anonymous fd; the argument is the READ's msg_id itself. */
#define CACHEFILES_IOC_READ_COMPLETE	_IOW(0x98, 1, int)

#endif
