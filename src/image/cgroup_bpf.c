/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cgroup_bpf.c - programs of BPF that are attached to a control group; see cgroup_bpf.h */
#include "image/cgroup_bpf.h"

#include <errno.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "image/bytes.h"

#define PROGRAMS_MAX 64u /* the kernel's limit for one group and kind */
#define INSTRUCTIONS_MAX 65536u
#define BARRIER 0xc2 /* the verifier's, against speculation: not taken from outside, and put in again */

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* Kinds of attachment to groups, BPF_CGROUP_* and BPF_LSM_CGROUP; numbers, since headers may be older than the kernel. */
static const uint8_t others[] = { 0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 18, 19, 20, 21, 22, 29, 30, 31, 32, 34, 43, 49, 50, 51, 52, 53 };

static uint32_t query(int dir, uint32_t type, uint32_t *ids, uint32_t *ret_flags)
{
	union bpf_attr attr = { .query = { .target_fd = (uint32_t)dir, .attach_type = type, .prog_ids = (uintptr_t)ids, .prog_cnt = ids ? PROGRAMS_MAX : 0 } };

	if (bpf(BPF_PROG_QUERY, &attr) < 0 && errno != ENOSPC)
		return 0;
	*ret_flags = attr.query.attach_flags;
	return attr.query.prog_cnt;
}

/* Whether the instructions are all there is to it: no calls, and no addresses of anything. */
static bool stands_alone(struct bpf_insn *code, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t class = BPF_CLASS(code[i].code);

		if (code[i].code == BARRIER)
			code[i] = (struct bpf_insn){ .code = BPF_JMP | BPF_JA };
		if ((class == BPF_JMP && BPF_OP(code[i].code) == BPF_CALL) || (class == BPF_LD && code[i].src_reg))
			return false;
	}
	return n > 0;
}

static bool read_program(uint32_t id, ProtobufCBinaryData *ret)
{
	union bpf_attr attr = { .prog_id = id };
	cleanup_close int fd = bpf(BPF_PROG_GET_FD_BY_ID, &attr);
	struct bpf_prog_info info = { 0 };
	cleanup_free struct bpf_insn *code = NULL;
	uint32_t bytes;

	attr = (union bpf_attr){ .info = { .bpf_fd = (uint32_t)fd, .info_len = sizeof(info), .info = (uintptr_t)&info } };
	if (fd < 0 || bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) < 0 || info.nr_map_ids || !info.xlated_prog_len || info.xlated_prog_len > INSTRUCTIONS_MAX * sizeof(*code))
		return false;
	bytes = info.xlated_prog_len;
	code = must_alloc(bytes);
	info = (struct bpf_prog_info){ .xlated_prog_len = bytes, .xlated_prog_insns = (uintptr_t)code };
	attr.info.info_len = sizeof(info);
	if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) < 0 || !info.xlated_prog_insns || info.xlated_prog_len != bytes || !stands_alone(code, bytes / sizeof(*code)))
		return false;
	bytes_set(ret, code, bytes);
	return true;
}

void cgroup_bpf_capture(int dir, Gw__CgroupGroup *g)
{
	uint32_t ids[PROGRAMS_MAX] = { 0 }, flags = 0, n = MIN(query(dir, BPF_CGROUP_DEVICE, ids, &flags), PROGRAMS_MAX);

	g->program_flags = flags;
	g->programs = must_alloc(n * sizeof(*g->programs));
	for (uint32_t i = 0; i < n; i++) {
		if (read_program(ids[i], &g->programs[g->n_programs]))
			g->n_programs++;
		else
			g->programs_left = true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		g->programs_left |= query(dir, others[i], NULL, &flags) > 0;
}

int cgroup_bpf_validate(const Gw__CgroupGroup *g, struct err *e)
{
	bool good = g->n_programs <= PROGRAMS_MAX && !(g->program_flags & ~(uint32_t)(BPF_F_ALLOW_OVERRIDE | BPF_F_ALLOW_MULTI));

	for (size_t i = 0; i < g->n_programs && good; i++)
		good = g->programs[i].len && g->programs[i].len % sizeof(struct bpf_insn) == 0 && g->programs[i].len <= INSTRUCTIONS_MAX * sizeof(struct bpf_insn);
	return good ? 0 : err_set(e, -EBADMSG, "control group %s: programs that cannot be", g->path);
}

static int attach(int dir, const ProtobufCBinaryData *code, uint32_t flags)
{
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .expected_attach_type = BPF_CGROUP_DEVICE, .insns = (uintptr_t)code->data,
				.insn_cnt = (uint32_t)(code->len / sizeof(struct bpf_insn)), .license = (uintptr_t) "GPL" };
	cleanup_close int fd = bpf(BPF_PROG_LOAD, &attr);

	if (fd < 0)
		return -errno;
	attr = (union bpf_attr){ .target_fd = (uint32_t)dir, .attach_bpf_fd = (uint32_t)fd, .attach_type = BPF_CGROUP_DEVICE, .attach_flags = flags };
	return bpf(BPF_PROG_ATTACH, &attr) < 0 ? -errno : 0;
}

int cgroup_bpf_restore(int dir, const Gw__CgroupGroup *g, struct err *e)
{
	int ret = 0;

	if (g->programs_left)
		return err_set(e, -EOPNOTSUPP, "control group %s: programs of BPF that are attached to it cannot move, and this host has no group of that path: make it, or detach them", g->path);
	for (size_t i = 0; i < g->n_programs && ret == 0; i++)
		ret = attach(dir, &g->programs[i], g->program_flags);
	return ret < 0 ? err_sys(e, ret, "control group %s: its filter of devices", g->path) : 0;
}
