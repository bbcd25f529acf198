// SPDX-License-Identifier: GPL-2.0
#include <linux/completion.h>
#include <linux/sched.h>
#include <linux/wait.h>

void ondemand_shim_init_completion(struct completion *done)
{
	init_completion(done);
}

int ondemand_shim_wait_for_completion_killable_freezable(struct completion *done)
{
	return wait_for_completion_state(done, (TASK_KILLABLE | TASK_FREEZABLE_UNSAFE));
}

void ondemand_shim_init_wait_queue(wait_queue_head_t *queue)
{
	init_waitqueue_head(queue);
}

void ondemand_shim_wake_up_poll(wait_queue_head_t *queue, unsigned int mask)
{
	wake_up_poll(queue, mask);
}

void ondemand_shim_wake_up_all_poll(wait_queue_head_t *queue, unsigned int mask)
{
	__wake_up(queue, TASK_NORMAL, 0, poll_to_key(mask));
}

int ondemand_shim_wait_event_killable_freezable(wait_queue_head_t *queue,
						bool (*holds)(void *), void *condition)
{
	return wait_event_state(*queue, holds(condition), (TASK_KILLABLE | TASK_FREEZABLE_UNSAFE));
}
