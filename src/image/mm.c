/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mm.c - the numbers of an address space; see mm.h */
#include "image/mm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "mm.pb-c.h"

/* Fields of /proc/PID/stat, counted from 1. */
enum { STAT_START_CODE = 26, STAT_END_CODE = 27, STAT_START_STACK = 28, STAT_START_DATA = 45, STAT_ENV_END = 51, STAT_FIELDS = 52 };
#define STAT_NOT_PERMITTED 1 /* what the kernel shows instead of an address to whom may not trace the process; 0: there is no memory, or not yet (exec) */

static ssize_t read_file(const char *path, void *data, size_t size, struct err *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;

	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	while (len < size) {
		ssize_t got = read(fd, (char *)data + len, size - len);

		if (got < 0)
			return err_sys(e, -errno, "%s", path);
		if (!got)
			break;
		len += got;
	}
	return len;
}

static int read_stat(pid_t pid, struct mm_fields *m, struct err *e)
{
	uint64_t field[STAT_FIELDS] = { 0 };
	char text[4096], path[64], *p;
	ssize_t len;
	int n = 2;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	len = read_file(path, text, sizeof(text) - 1, e);
	if (len < 0)
		return len;
	text[len] = 0;
	/* the name may hold spaces and brackets */
	p = strrchr(text, ')');
	for (p = p ? strchr(p, ' ') : NULL; p && n + 1 < STAT_FIELDS; p = strchr(p + 1, ' '))
		field[++n] = strtoull(p + 1, NULL, 10);
	if (n >= STAT_ENV_END && !field[STAT_START_CODE])
		return err_set(e, -ESRCH, "%s: the process ends, or calls exec", path);
	if (n < STAT_ENV_END || field[STAT_START_CODE] == STAT_NOT_PERMITTED)
		return err_set(e, -EPERM, "%s does not show the addresses (CAP_SYS_PTRACE is needed)", path);
	m->start_code = field[STAT_START_CODE];
	m->end_code = field[STAT_END_CODE];
	m->start_stack = field[STAT_START_STACK];
	m->start_data = field[STAT_START_DATA];
	m->end_data = field[STAT_START_DATA + 1];
	m->start_brk = field[STAT_START_DATA + 2];
	m->arg_start = field[STAT_START_DATA + 3];
	m->arg_end = field[STAT_START_DATA + 4];
	m->env_start = field[STAT_START_DATA + 5];
	m->env_end = field[STAT_ENV_END];
	return 0;
}

int mm_read(pid_t pid, const struct vma_list *l, struct fsfile_table *files, struct mm_fields *ret, struct err *e)
{
	struct mm_fields m = { 0 };
	const struct vma *heap;
	uint32_t index;
	char path[64];
	ssize_t len;
	int rc = read_stat(pid, &m, e);

	if (rc < 0)
		return rc;
	heap = vma_find(l, m.start_brk);
	m.brk = heap && heap->kind == VMA_ANON ? heap->end : m.start_brk;
	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	len = read_file(path, m.auxv, sizeof(m.auxv), e);
	if (len < 0)
		return len;
	m.n_auxv = len / sizeof(*m.auxv);
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	rc = fsfile_add(files, path, FSFILE_PROGRAM, &index, e);
	if (rc < 0)
		return rc;
	m.exe_file = index;
	*ret = m;
	return 0;
}

struct remote_call *mm_capture_plan(struct batch *b)
{
	return batch_call(b, "brk", SYS_brk, 0);
}

void mm_capture_collect(struct mm_fields *m, const struct remote_call *call)
{
	m->brk = call->ret;
}

void mm_plan_restore(struct batch *b, const struct mm_fields *m, int exe_fd)
{
	struct prctl_mm_map *map;
	uint64_t at;

	map = batch_space(b, sizeof(*map), &at);
	map->start_code = m->start_code;
	map->end_code = m->end_code;
	map->start_data = m->start_data;
	map->end_data = m->end_data;
	map->start_brk = m->start_brk;
	map->brk = m->brk;
	map->start_stack = m->start_stack;
	map->arg_start = m->arg_start;
	map->arg_end = m->arg_end;
	map->env_start = m->env_start;
	map->env_end = m->env_end;
	map->auxv = (void *)batch_data(b, m->auxv, m->n_auxv * sizeof(*m->auxv));
	map->auxv_size = m->n_auxv * sizeof(*m->auxv);
	map->exe_fd = exe_fd;
	batch_call(b, "prctl(PR_SET_MM_MAP)", SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, at, sizeof(*map));
}

/* The plain numbers of the message and of the struct, in the same order. */
#define FIELDS(X)                                                                           \
	X(start_code) X(end_code) X(start_data) X(end_data) X(start_brk) X(brk)             \
	X(start_stack) X(arg_start) X(arg_end) X(env_start) X(env_end)

int mm_encode(const struct mm_fields *m, uint8_t **ret_data, size_t *ret_len, struct err *e)
{
	Gw__MmFields out = GW__MM_FIELDS__INIT;
	uint64_t auxv[MM_AUXV_MAX];

#define PUT(name) out.name = m->name;
	FIELDS(PUT)
#undef PUT
	memcpy(auxv, m->auxv, sizeof(auxv));
	out.auxv = auxv;
	out.n_auxv = m->n_auxv;
	out.exe_file_plus_one = m->exe_file + 1;
	*ret_len = gw__mm_fields__get_packed_size(&out);
	*ret_data = malloc(*ret_len ? *ret_len : 1);
	if (!*ret_data)
		return err_set(e, -ENOMEM, "no memory for the mm message");
	gw__mm_fields__pack(&out, *ret_data);
	return 0;
}

int mm_decode(const void *data, size_t len, uint32_t n_files, struct mm_fields *ret, struct err *e)
{
	Gw__MmFields *in = gw__mm_fields__unpack(NULL, len, data);
	struct mm_fields m = { 0 };
	int rc = 0;

	if (!in)
		return err_set(e, -EBADMSG, "mm: not a message");
#define GET(name) m.name = in->name;
	FIELDS(GET)
#undef GET
	if (in->n_auxv > MM_AUXV_MAX || in->exe_file_plus_one > n_files)
		rc = err_set(e, -EBADMSG, "mm: auxv or executable out of range");
	if (rc == 0) {
		if (in->n_auxv)
			memcpy(m.auxv, in->auxv, in->n_auxv * sizeof(*m.auxv));
		m.n_auxv = in->n_auxv;
		m.exe_file = (int32_t)in->exe_file_plus_one - 1;
		rc = mm_validate(&m, n_files, e);
	}
	gw__mm_fields__free_unpacked(in, NULL);
	if (rc == 0)
		*ret = m;
	return rc;
}

int mm_validate(const struct mm_fields *m, uint32_t n_files, struct err *e)
{
#define CHECK(name)                         \
	if (m->name >= VMA_TASK_SIZE)       \
		return err_set(e, -EBADMSG, "mm: " #name " %llx is no user address", (unsigned long long)m->name);
	FIELDS(CHECK)
#undef CHECK
	if (m->start_code > m->end_code || m->start_data > m->end_data || m->start_brk > m->brk || m->arg_start > m->arg_end ||
	    m->env_start > m->env_end)
		return err_set(e, -EBADMSG, "mm: an area ends before it starts");
	if (m->n_auxv > MM_AUXV_MAX || m->n_auxv % 2)
		return err_set(e, -EBADMSG, "mm: auxv has %u words", m->n_auxv);
	if (m->exe_file < 0 || (uint32_t)m->exe_file >= n_files)
		return err_set(e, -EBADMSG, "mm: the executable is not in the list of files");
	return 0;
}
