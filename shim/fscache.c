// SPDX-License-Identifier: GPL-2.0
#include <linux/fscache-cache.h>
#include <trace/events/fscache.h>

void ondemand_shim_fscache_count_object(struct fscache_cache *cache)
{
	fscache_count_object(cache);
}

void ondemand_shim_fscache_uncount_object(struct fscache_cache *cache)
{
	fscache_uncount_object(cache);
}

void ondemand_shim_fscache_wait_for_objects(struct fscache_cache *cache)
{
	fscache_wait_for_objects(cache);
}

void *ondemand_shim_fscache_get_key(struct fscache_cookie *cookie)
{
	return fscache_get_key(cookie);
}

void ondemand_shim_fscache_count_read(void)
{
	fscache_count_read();
}

void ondemand_shim_fscache_count_write(void)
{
	fscache_count_write();
}

void ondemand_shim_fscache_count_no_write_space(void)
{
	fscache_count_no_write_space();
}

void ondemand_shim_fscache_count_no_create_space(void)
{
	fscache_count_no_create_space();
}

void ondemand_shim_fscache_count_culled(void)
{
	fscache_count_culled();
}

void ondemand_shim_fscache_count_dio_misfit(void)
{
	fscache_count_dio_misfit();
}

void ondemand_shim_fscache_pin_volume(struct fscache_volume *volume)
{
	trace_fscache_access_volume(volume->debug_id, 0, refcount_read(&volume->ref),
				    atomic_inc_return(&volume->n_accesses),
				    fscache_access_cache_pin);
}

void ondemand_shim_cookie_set_flag(struct fscache_cookie *cookie, unsigned int flag)
{
	set_bit(flag, &cookie->flags);
}

void ondemand_shim_cookie_clear_flag(struct fscache_cookie *cookie, unsigned int flag)
{
	clear_bit(flag, &cookie->flags);
}

bool ondemand_shim_cookie_test_and_clear_flag(struct fscache_cookie *cookie, unsigned int flag)
{
	return test_and_clear_bit(flag, &cookie->flags);
}

struct fscache_cookie *ondemand_shim_fscache_get_object_cookie(struct fscache_cookie *cookie)
{
	return fscache_get_cookie(cookie, fscache_cookie_get_attach_object);
}

void ondemand_shim_fscache_put_object_cookie(struct fscache_cookie *cookie)
{
	fscache_put_cookie(cookie, fscache_cookie_put_object);
}

struct fscache_volume *ondemand_shim_fscache_get_withdrawn_volume(struct fscache_volume *volume)
{
	return fscache_try_get_volume(volume, fscache_volume_get_withdraw);
}

void ondemand_shim_fscache_put_withdrawn_volume(struct fscache_volume *volume)
{
	fscache_put_volume(volume, fscache_volume_put_withdraw);
}

void ondemand_shim_fscache_end_io(struct fscache_cookie *cookie)
{
	fscache_end_cookie_access(cookie, fscache_access_io_end);
}

void ondemand_shim_flush_fscache_wq(void)
{
	flush_workqueue(fscache_wq);
}
