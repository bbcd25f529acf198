// SPDX-License-Identifier: GPL-2.0
#define CREATE_TRACE_POINTS
#include "ondemand_trace.h"

void ondemand_shim_trace_enqueue(u32 object, u32 msg_id, u32 opcode, u64 off, u64 len)
{
	trace_ondemand_enqueue(object, msg_id, opcode, off, len);
}

void ondemand_shim_trace_deliver(u32 object, u32 msg_id, u32 object_id, u32 opcode)
{
	trace_ondemand_deliver(object, msg_id, object_id, opcode);
}

void ondemand_shim_trace_answer(u32 msg_id, u32 object_id, u32 opcode, s64 result)
{
	trace_ondemand_answer(msg_id, object_id, opcode, result);
}

void ondemand_shim_trace_complete(u32 msg_id, u32 object_id, u32 opcode, s32 error)
{
	trace_ondemand_complete(msg_id, object_id, opcode, error);
}

void ondemand_shim_trace_state(u32 object, u32 object_id, u32 from, u32 to)
{
	trace_ondemand_state(object, object_id, from, to);
}

void ondemand_shim_trace_expire(const char *volume, size_t volume_len, const char *name,
				size_t name_len, u32 msg_id, u32 opcode, u64 off, u64 len, s32 error)
{
	trace_ondemand_expire(volume, volume_len, name, name_len, msg_id, opcode, off, len, error);
}
