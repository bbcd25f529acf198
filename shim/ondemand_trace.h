/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of the on-demand requests.
 *
 * object: the module's own number of an object, the same as long as its cookie
 * is cached. object_id: as in the messages, new with every opening; 0 where
 * there is none. msg_id: as in the messages.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM ondemand

#if !defined(ONDEMAND_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define ONDEMAND_TRACE_H

#include <linux/tracepoint.h>

#ifndef ONDEMAND_TRACE_ONCE
#define ONDEMAND_TRACE_ONCE
#define show_opcode(op) \
	__print_symbolic(op, { 0, "OPEN" }, { 1, "CLOSE" }, { 2, "READ" })
#define show_state(state) \
	__print_symbolic(state, { 0, "CLOSE" }, { 1, "OPEN" }, { 2, "REOPENING" }, { 3, "DROPPING" })
#endif

TRACE_EVENT(ondemand_enqueue,
	TP_PROTO(u32 object, u32 msg_id, u32 opcode, u64 off, u64 len),
	TP_ARGS(object, msg_id, opcode, off, len),
	TP_STRUCT__entry(
		__field(u32, object)
		__field(u32, msg_id)
		__field(u32, opcode)
		__field(u64, off)
		__field(u64, len)
	),
	TP_fast_assign(
		__entry->object = object;
		__entry->msg_id = msg_id;
		__entry->opcode = opcode;
		__entry->off = off;
		__entry->len = len;
	),
	TP_printk("object=%u msg_id=%u opcode=%s off=%llu len=%llu",
		  __entry->object, __entry->msg_id, show_opcode(__entry->opcode),
		  __entry->off, __entry->len)
);

TRACE_EVENT(ondemand_deliver,
	TP_PROTO(u32 object, u32 msg_id, u32 object_id, u32 opcode),
	TP_ARGS(object, msg_id, object_id, opcode),
	TP_STRUCT__entry(
		__field(u32, object)
		__field(u32, msg_id)
		__field(u32, object_id)
		__field(u32, opcode)
	),
	TP_fast_assign(
		__entry->object = object;
		__entry->msg_id = msg_id;
		__entry->object_id = object_id;
		__entry->opcode = opcode;
	),
	TP_printk("object=%u msg_id=%u object_id=%u opcode=%s",
		  __entry->object, __entry->msg_id, __entry->object_id,
		  show_opcode(__entry->opcode))
);

TRACE_EVENT(ondemand_answer,
	TP_PROTO(u32 msg_id, u32 object_id, u32 opcode, s64 result),
	TP_ARGS(msg_id, object_id, opcode, result),
	TP_STRUCT__entry(
		__field(u32, msg_id)
		__field(u32, object_id)
		__field(u32, opcode)
		__field(s64, result)
	),
	TP_fast_assign(
		__entry->msg_id = msg_id;
		__entry->object_id = object_id;
		__entry->opcode = opcode;
		__entry->result = result;
	),
	TP_printk("msg_id=%u object_id=%u opcode=%s result=%lld",
		  __entry->msg_id, __entry->object_id, show_opcode(__entry->opcode),
		  __entry->result)
);

TRACE_EVENT(ondemand_complete,
	TP_PROTO(u32 msg_id, u32 object_id, u32 opcode, s32 error),
	TP_ARGS(msg_id, object_id, opcode, error),
	TP_STRUCT__entry(
		__field(u32, msg_id)
		__field(u32, object_id)
		__field(u32, opcode)
		__field(s32, error)
	),
	TP_fast_assign(
		__entry->msg_id = msg_id;
		__entry->object_id = object_id;
		__entry->opcode = opcode;
		__entry->error = error;
	),
	TP_printk("msg_id=%u object_id=%u opcode=%s error=%d",
		  __entry->msg_id, __entry->object_id, show_opcode(__entry->opcode),
		  __entry->error)
);

TRACE_EVENT(ondemand_state,
	TP_PROTO(u32 object, u32 object_id, u32 from, u32 to),
	TP_ARGS(object, object_id, from, to),
	TP_STRUCT__entry(
		__field(u32, object)
		__field(u32, object_id)
		__field(u32, from)
		__field(u32, to)
	),
	TP_fast_assign(
		__entry->object = object;
		__entry->object_id = object_id;
		__entry->from = from;
		__entry->to = to;
	),
	TP_printk("object=%u object_id=%u from=%s to=%s",
		  __entry->object, __entry->object_id, show_state(__entry->from),
		  show_state(__entry->to))
);

/* name: of the object's file, the cookie's key as store/key.rs writes it. */
TRACE_EVENT(ondemand_expire,
	TP_PROTO(const char *volume, size_t volume_len, const char *name, size_t name_len,
		 u32 msg_id, u32 opcode, u64 off, u64 len, s32 error),
	TP_ARGS(volume, volume_len, name, name_len, msg_id, opcode, off, len, error),
	TP_STRUCT__entry(
		__string_len(volume, volume, volume_len)
		__string_len(name, name, name_len)
		__field(u32, msg_id)
		__field(u32, opcode)
		__field(u64, off)
		__field(u64, len)
		__field(s32, error)
	),
	TP_fast_assign(
		__assign_str(volume);
		__assign_str(name);
		__entry->msg_id = msg_id;
		__entry->opcode = opcode;
		__entry->off = off;
		__entry->len = len;
		__entry->error = error;
	),
	TP_printk("volume=%s cookie=%s msg_id=%u opcode=%s off=%llu len=%llu error=%d",
		  __get_str(volume), __get_str(name), __entry->msg_id,
		  show_opcode(__entry->opcode), __entry->off, __entry->len, __entry->error)
);

#endif /* ONDEMAND_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE ondemand_trace
#include <trace/define_trace.h>
