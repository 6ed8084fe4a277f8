/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * redirect_attach.c - the programs on the devices of a host; see redirect.h
 *
 * They are attached to the devices themselves (tcx, Linux 6.6), not to a queueing discipline clsact: making that takes the device's own discipline away for
 * milliseconds, in which everything that the host sends is lost (tests/facts/tcx_attach.c).
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <net/if.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "net/redirect_internal.h"

/* Headers older than the kernel lack these. */
#define TCX_INGRESS 46
#define TCX_EGRESS 47
#define BEFORE (1u << 3) /* all others */
#define PROGRAMS_MAX 64

struct attach_attr {
	uint32_t device, program, type, flags, replace, relative;
	uint64_t revision;
};

struct query_attr {
	uint32_t device, type, query_flags, attach_flags;
	uint64_t ids;
	uint32_t count, unused;
	uint64_t attach_flags_of_all, link_ids, link_flags, revision;
};

static int call(int command, void *attr, size_t len)
{
	return syscall(SYS_bpf, command, attr, len) < 0 ? -errno : 0;
}

const char *const redirect_program_names[REDIRECT_PROGRAMS] = { "gw_in", "gw_out", "gw_in_raw", "gw_out_raw" };

/* A descriptor of the program of that name, -ENOENT when there is none. */
static int find_program(uint32_t device, uint32_t type, const char *name)
{
	uint32_t ids[PROGRAMS_MAX] = { 0 };
	struct query_attr query = { .device = device, .type = type, .ids = (uintptr_t)ids, .count = PROGRAMS_MAX };
	int r = call(BPF_PROG_QUERY, &query, sizeof(query));

	for (uint32_t i = 0; r == 0 && i < MIN(query.count, (uint32_t)PROGRAMS_MAX); i++) {
		cleanup_close int fd = bpf_prog_get_fd_by_id(ids[i]);
		struct bpf_prog_info info = { 0 };
		uint32_t len = sizeof(info);

		if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && !strcmp(info.name, name))
			return take_fd(&fd);
	}
	return r < 0 ? r : -ENOENT;
}

static int attach(uint32_t device, uint32_t type, int program, const char *name)
{
	struct attach_attr attr = { .device = device, .program = (uint32_t)program, .type = type, .flags = BEFORE };
	cleanup_close int there = find_program(device, type, name);

	return there >= 0 ? 0 : call(BPF_PROG_ATTACH, &attr, sizeof(attr));
}

static int attach_one(struct redirect *r, uint32_t device, uint32_t type, enum redirect_program which)
{
	return attach(device, type, r->programs[which], redirect_program_names[which]);
}

static void detach(uint32_t device, uint32_t type, const char *name)
{
	cleanup_close int program = find_program(device, type, name);
	struct attach_attr attr = { .device = device, .program = (uint32_t)program, .type = type };

	if (program >= 0)
		call(BPF_PROG_DETACH, &attr, sizeof(attr));
}

struct attaching {
	struct redirect *r;
	int code;
	unsigned device;
};

static void attach_device(unsigned device, bool has_header, void *arg)
{
	struct attaching *a = arg;
	int r = 0;

	if (a->code < 0)
		return;
	/* On the loopback device each packet comes by twice, and is ours the first time. That program is also how the maps are found: it comes last, and goes last. */
	if (device != a->r->config->lo)
		r = attach_one(a->r, device, TCX_INGRESS, has_header ? REDIRECT_IN : REDIRECT_IN_RAW);
	if (r >= 0)
		r = attach_one(a->r, device, TCX_EGRESS, has_header ? REDIRECT_OUT : REDIRECT_OUT_RAW);
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
	char name[IF_NAMESIZE] = "?";
	int code = host_each_device(attach_but_lo, &a, e);

	if (code < 0)
		return code;
	attach_device(r->config->lo, true, &a);
	if (a.code == -EINVAL)
		return err_set(e, -EOPNOTSUPP, "this kernel cannot attach programs to devices (tcx): Linux 6.6 or later can");
	if (a.code < 0) {
		if_indextoname(a.device, name);
		return err_sys(e, a.code, "device %s: attaching the program that redirects moved connections", name);
	}
	return 0;
}

int redirect_attach_raw(struct redirect *r, uint32_t device, struct err *e)
{
	int code = attach_one(r, device, TCX_INGRESS, REDIRECT_IN_RAW);

	return code < 0 ? err_sys(e, code, "attaching the program that redirects moved connections to a tun device") : 0;
}

int redirect_attached(void)
{
	int fd = find_program(if_nametoindex("lo"), TCX_EGRESS, redirect_program_names[REDIRECT_OUT]);

	return fd == -ENOENT || fd == -EINVAL || fd == -ENODEV ? 0 : fd;
}

int redirect_attach_call(struct redirect *r, const struct bpf_program *program)
{
	return attach(r->config->lo, TCX_INGRESS, bpf_program__fd(program), bpf_program__name(program));
}

int redirect_attached_call(struct redirect *r)
{
	return find_program(r->config->lo, TCX_INGRESS, "gw_call");
}

static void detach_device(unsigned device, bool has_header, void *arg)
{
	struct redirect *r = arg;

	if (device == r->config->lo)
		return;
	detach(device, TCX_INGRESS, redirect_program_names[has_header ? REDIRECT_IN : REDIRECT_IN_RAW]);
	detach(device, TCX_EGRESS, redirect_program_names[has_header ? REDIRECT_OUT : REDIRECT_OUT_RAW]);
}

void redirect_detach(struct redirect *r)
{
	host_each_device(detach_device, r, NULL);
	host_restore_lo(r);
	host_remove_rules();
	detach(r->config->lo, TCX_INGRESS, "gw_call");
	detach(r->config->lo, TCX_EGRESS, redirect_program_names[REDIRECT_OUT]);
}
