/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * redirect_open.c - the programs: loading them, and opening the table with them; see redirect.h
 *
 * The kernel verifies what is loaded, for a long time. Nobody waits for that: it is done without the lock, against the table that was in use when it began (or
 * with one of its own, where there was none). If another one is in use when it has ended, it is done again.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "net/redirect.skel.h"
#include "net/redirect_internal.h"

#define MAPS_MAX 16
#define TO_LOAD 1
#define TRIES 8

static int prepared[REDIRECT_PROGRAMS] = REDIRECT_PROGRAMS_NONE;

void redirect_programs_close(int programs[REDIRECT_PROGRAMS])
{
	for (size_t i = 0; i < REDIRECT_PROGRAMS; i++)
		close_fdp(&programs[i]);
}

static int copy_fds(int to[REDIRECT_PROGRAMS], const int from[REDIRECT_PROGRAMS], struct err *e)
{
	for (size_t i = 0; i < REDIRECT_PROGRAMS; i++) {
		to[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 3);
		if (to[i] < 0)
			return err_sys(e, -errno, "the programs that redirect connections");
	}
	return 0;
}

/* r: found, or nothing but a lock. */
static int load(struct redirect *r, int ret[REDIRECT_PROGRAMS], struct err *e)
{
	libbpf_print_fn_t print = bpf_iter_quiet();
	struct redirect_bpf *bpf = redirect_bpf__open();
	int code = bpf ? 0 : errno ? -errno : -ENOMEM;

	for (struct bpf_map *m = NULL; bpf && r->ends_fd >= 0 && code >= 0 && (m = bpf_object__next_map(bpf->obj, m));) {
		const int *slot = redirect_map_slot(r, bpf_map__name(m));

		if (slot)
			code = bpf_map__reuse_fd(m, *slot);
	}
	if (bpf && code >= 0)
		code = redirect_bpf__load(bpf);
	libbpf_set_print(print);
	if (code < 0) {
		err_sys(e, code, "loading the programs that redirect connections (BPF, tc)");
	} else {
		const int programs[REDIRECT_PROGRAMS] = { bpf_program__fd(bpf->progs.gw_in), bpf_program__fd(bpf->progs.gw_out),
							  bpf_program__fd(bpf->progs.gw_in_raw), bpf_program__fd(bpf->progs.gw_out_raw) };

		code = copy_fds(ret, programs, e);
	}
	redirect_bpf__destroy(bpf);
	return code;
}

static uint32_t map_id(int fd)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) < 0 ? 0 : info.id;
}

/* Whether programs are those of the table. */
static bool belong(const int programs[REDIRECT_PROGRAMS], const struct redirect *r)
{
	uint32_t ids[MAPS_MAX] = { 0 }, id = map_id(r->ends_fd);
	struct bpf_prog_info info = { .nr_map_ids = MAPS_MAX, .map_ids = (uintptr_t)ids };
	uint32_t len = sizeof(info);

	if (programs[REDIRECT_OUT] < 0 || !id || bpf_obj_get_info_by_fd(programs[REDIRECT_OUT], &info, &len) < 0)
		return false;
	for (uint32_t i = 0; i < MIN(info.nr_map_ids, (uint32_t)MAPS_MAX); i++)
		if (ids[i] == id)
			return true;
	return false;
}

int redirect_prepare(int ret[REDIRECT_PROGRAMS], struct err *e)
{
	cleanup_redirect struct redirect *r = redirect_new(e);
	int code;

	if (!r)
		return e ? e->code : -ENOMEM;
	code = redirect_find_attached(r, e);
	return code < 0 ? code : load(r, ret, e);
}

void redirect_set_prepared(const int programs[REDIRECT_PROGRAMS])
{
	redirect_programs_close(prepared);
	memcpy(prepared, programs, sizeof(prepared));
}

bool redirect_is_prepared(const struct redirect *r)
{
	return belong(prepared, r);
}

/* With the lock. TO_LOAD: with programs for r, then once more. */
static int open_locked(struct redirect *r, const int loaded[REDIRECT_PROGRAMS], struct err *e)
{
	int found = redirect_find_attached(r, e), code;
	const int *programs = loaded;

	if (found < 0)
		return found;
	if (found ? !belong(programs, r) : programs[0] < 0)
		programs = prepared;
	if (found ? !belong(programs, r) : programs[0] < 0)
		return TO_LOAD;
	code = copy_fds(r->programs, programs, e);
	if (code >= 0 && !found)
		code = redirect_find_maps(r, r->programs[REDIRECT_OUT], e);
	if (code >= 0 && !found)
		code = redirect_map_all(r, e);
	if (code < 0)
		return code;
	if (!found) {
		r->config->version = REDIRECT_VERSION;
		r->config->lo = if_nametoindex("lo");
	}
	r->config->opened_ns = clock_ns(CLOCK_MONOTONIC);
	code = host_add_rules(e);
	if (code < 0)
		return code;
	host_trust_device("lo");
	code = redirect_attach(r, e);
	redirect_tell_addresses(r);
	return code;
}

int redirect_open(struct redirect **ret, struct err *e)
{
	int loaded[REDIRECT_PROGRAMS] = REDIRECT_PROGRAMS_NONE;
	cleanup_redirect struct redirect *r = NULL;
	int code = TO_LOAD;

	for (int i = 0; i < TRIES && code == TO_LOAD; i++) {
		redirect_close(&r);
		r = redirect_new(e);
		if (!r)
			return e ? e->code : -ENOMEM;
		redirect_lock(r);
		code = open_locked(r, loaded, e);
		redirect_unlock(r);
		if (code != TO_LOAD)
			break;
		redirect_programs_close(loaded);
		code = load(r, loaded, e) < 0 ? e ? e->code : -EIO : TO_LOAD;
	}
	redirect_programs_close(loaded);
	if (code == TO_LOAD)
		return err_set(e, -EBUSY, "the programs that redirect connections are attached and detached all the time");
	if (code < 0)
		return code;
	*ret = take_ptr(r);
	return 0;
}
