// SPDX-License-Identifier: GPL-2.0
/*
 * Names for what Rust cannot call: inline functions and macros. One file a
 * kernel header, one statement a function, no logic. bindgen drops the prefix
 * ondemand_shim_.
 */

#include "compat.h"

#include "buffer_head.c"
#include "cred.c"
#include "fs.c"
#include "fs_struct.c"
#include "fscache.c"
#include "ioprio.c"
#include "jiffies.c"
#include "mm.c"
#include "mount.c"
#include "namei.c"
#include "poll.c"
#include "ratelimit.c"
#include "rcupdate.c"
#include "security.c"
#include "trace.c"
#include "wait.c"
#include "workqueue.c"
#include "xarray.c"
#include "moduleparam.c"
