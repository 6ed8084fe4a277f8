/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* redirect_call.c - connections that a listener of another host has answered, and that have no socket here yet; see redirect.h */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "net/call.skel.h"
#include "net/redirect_internal.h"

#define MAPS_MAX 8
#define CALL_NS 60000000000ull /* after that a client has given up */

/* The table of the program that is attached. */
static int find_calls(struct redirect *r)
{
	cleanup_close int program = redirect_attached_call(r);
	uint32_t ids[MAPS_MAX] = { 0 }, len;
	struct bpf_prog_info info = { .nr_map_ids = MAPS_MAX, .map_ids = (uintptr_t)ids };

	len = sizeof(info);
	if (program < 0 || bpf_obj_get_info_by_fd(program, &info, &len) < 0)
		return -ENOENT;
	for (uint32_t i = 0; i < MIN(info.nr_map_ids, (uint32_t)MAPS_MAX); i++) {
		cleanup_close int fd = bpf_map_get_fd_by_id(ids[i]);
		struct bpf_map_info map = { 0 };

		len = sizeof(map);
		if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &map, &len) == 0 && !strcmp(map.name, "calls"))
			return take_fd(&fd);
	}
	return -ENOENT;
}

static int load_calls(struct redirect *r)
{
	struct call_bpf *bpf = BPF_ITER_LOAD(call_bpf__open_and_load);
	int code = bpf ? redirect_attach_call(r, bpf->progs.gw_call) : -ENOTSUP;

	call_bpf__destroy(bpf);
	return code < 0 ? code : find_calls(r);
}

/* The kernel makes such connections as it makes those with SYN cookies. */
static bool has_cookies(void)
{
	FILE *f = fopen("/proc/sys/net/ipv4/tcp_syncookies", "re");
	int value = 0;
	bool any = f && fscanf(f, "%d", &value) == 1 && value > 0;

	if (f)
		fclose(f);
	return any;
}

bool redirect_takes_calls(struct redirect *r)
{
	if (!has_cookies())
		return false;
	if (r->calls_fd >= 0)
		return true;
	redirect_lock(r);
	r->calls_fd = find_calls(r);
	if (r->calls_fd < 0)
		r->calls_fd = load_calls(r);
	redirect_unlock(r);
	return r->calls_fd >= 0;
}

int redirect_expect_call(struct redirect *r, const struct redirect_flow *flow, const struct redirect_call *call, bool unanswered)
{
	struct redirect_call entry = *call;
	struct redirect_end end;

	entry.until_ns = clock_ns(CLOCK_MONOTONIC) + CALL_NS;
	if (r->calls_fd < 0 || bpf_map_update_elem(r->calls_fd, flow, &entry, BPF_ANY) < 0)
		return -ENOTSUP;
	if (!unanswered || !redirect_get(r, flow, &end))
		return 0;
	end.flags |= REDIRECT_CALLED;
	return redirect_put(r, flow, &end);
}

void redirect_forget_call(struct redirect *r, const struct redirect_flow *flow)
{
	if (r->calls_fd >= 0)
		bpf_map_delete_elem(r->calls_fd, flow);
}
