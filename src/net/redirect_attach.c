/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* redirect_attach.c - the tc programs on the devices of a host (tc-bpf(8)); see redirect.h */
#include <bpf/bpf.h>
#include <errno.h>
#include <net/if.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "net/redirect.skel.h"
#include "net/redirect_internal.h"

#define PRIORITY 26487 /* of our filters: others come first */
#define HANDLE 1

static int query(uint32_t device, enum bpf_tc_attach_point point, uint32_t *ret_id)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)device, .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY);
	int r = bpf_tc_query(&hook, &opts);

	if (r == 0)
		*ret_id = opts.prog_id;
	return r;
}

static int attach(uint32_t device, enum bpf_tc_attach_point point, int program)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)device, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY, .prog_fd = program, .flags = BPF_TC_F_REPLACE);
	int r = bpf_tc_hook_create(&hook);

	if (r < 0 && r != -EEXIST)
		return r;
	hook.attach_point = point;
	return bpf_tc_attach(&hook, &opts);
}

static void detach(uint32_t device, enum bpf_tc_attach_point point)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)device, .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY);

	bpf_tc_detach(&hook, &opts);
}

struct attaching {
	struct redirect *r;
	int code;
	unsigned device;
};

static void attach_device(unsigned device, bool has_header, void *arg)
{
	struct attaching *a = arg;
	struct redirect_bpf *bpf = a->r->bpf;
	int in = bpf_program__fd(has_header ? bpf->progs.gw_in : bpf->progs.gw_in_raw);
	int out = bpf_program__fd(has_header ? bpf->progs.gw_out : bpf->progs.gw_out_raw);
	uint32_t id;
	int r = 0;

	if (a->code < 0 || !query(device, BPF_TC_EGRESS, &id))
		return;
	/* On the loopback device each packet comes by twice, and is ours the first time. That filter is also how the maps are found: it comes last, and goes last. */
	if (device != a->r->config->lo)
		r = attach(device, BPF_TC_INGRESS, in);
	if (r >= 0)
		r = attach(device, BPF_TC_EGRESS, out);
	if (r < 0) {
		a->code = r;
		a->device = device;
	}
}

static void attach_but_lo(unsigned device, bool has_header, void *arg)
{
	struct attaching *a = arg;

	if (device != a->r->config->lo)
		attach_device(device, has_header, arg);
}

int redirect_attach(struct redirect *r, struct err *e)
{
	struct attaching a = { .r = r };
	libbpf_print_fn_t print = bpf_iter_quiet();
	char name[IF_NAMESIZE] = "?";
	int code = host_each_device(attach_but_lo, &a, e);

	if (code >= 0)
		attach_device(r->config->lo, true, &a);
	libbpf_set_print(print);
	if (code < 0)
		return code;
	if (a.code < 0) {
		if_indextoname(a.device, name);
		return err_sys(e, a.code, "device %s: attaching the program that redirects moved connections (tc, clsact)", name);
	}
	return 0;
}

int redirect_attach_raw(struct redirect *r, uint32_t device, struct err *e)
{
	libbpf_print_fn_t print = bpf_iter_quiet();
	int code = attach(device, BPF_TC_INGRESS, bpf_program__fd(r->bpf->progs.gw_in_raw));

	libbpf_set_print(print);
	return code < 0 ? err_sys(e, code, "attaching the program that redirects moved connections to a tun device") : 0;
}

int redirect_attached(void)
{
	libbpf_print_fn_t print = bpf_iter_quiet();
	uint32_t id = 0;
	int r = query(if_nametoindex("lo"), BPF_TC_EGRESS, &id);

	libbpf_set_print(print);
	if (r == -ENOENT || r == -EINVAL || r == -EOPNOTSUPP || (r == 0 && !id))
		return 0;
	return r < 0 ? r : bpf_prog_get_fd_by_id(id);
}

static void detach_device(unsigned device, bool has_header, void *arg)
{
	struct redirect *r = arg;

	if (device == r->config->lo)
		return;
	detach(device, BPF_TC_INGRESS);
	detach(device, BPF_TC_EGRESS);
}

void redirect_detach(struct redirect *r)
{
	libbpf_print_fn_t print = bpf_iter_quiet();

	host_each_device(detach_device, r, NULL);
	host_restore_lo(r);
	host_remove_rules();
	detach(r->config->lo, BPF_TC_EGRESS);
	libbpf_set_print(print);
}
