/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tree_wire.c - the table of a unit's processes as a message, and what is believed of one that comes from a peer; see tree.h */
#include "image/tree.h"

#include <errno.h>

#include "base/util.h"
#include "image/bytes.h"
#include "tree.pb-c.h"

#define PID_MAX 4194304
#define SIGNAL_MAX 64u
#define CORE_DUMPED 0x80u

/* --- what is consistent --- */

static int compare_numbers(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return x < y ? -1 : x > y;
}

static int check_unique(const struct tree *t, struct err *e)
{
	cleanup_free pid_t *pids = calloc(t->n, sizeof(*pids));

	if (!pids)
		return err_sys(e, ENOMEM, "a tree of processes");
	for (size_t i = 0; i < t->n; i++)
		pids[i] = t->v[i].pid;
	qsort(pids, t->n, sizeof(*pids), compare_numbers);
	for (size_t i = 1; i < t->n; i++)
		if (pids[i] == pids[i - 1])
			return err_set(e, -EBADMSG, "tree: two processes have the number %d", pids[i]);
	return 0;
}

static bool status_is_an_end(uint32_t status)
{
	if (status & 0x7f)
		return (status & 0x7f) <= SIGNAL_MAX && !(status & ~(0x7fu | CORE_DUMPED));
	return !(status & ~0xff00u);
}

static bool in_range(const struct tree_process *p)
{
	return p->pid >= 1 && p->pid <= PID_MAX && p->pgid >= 0 && p->pgid <= PID_MAX && p->sid >= 0 && p->sid <= PID_MAX && p->tpgid >= -1 &&
	       p->tpgid <= PID_MAX && p->parent_tid >= 0 && p->parent_tid <= PID_MAX && p->exit_signal <= SIGNAL_MAX &&
	       (p->zombie ? status_is_an_end(p->exit_status) : !p->exit_status);
}

/* Whether a session or group that is named by a process's number is where that process is. */
static bool leaders_agree(const struct tree *t, const struct tree_process *p)
{
	uint32_t session = tree_find(t, p->sid), group = tree_find(t, p->pgid);

	if (p->sid == p->pid && p->pgid != p->pid)
		return false;
	return (session == TREE_NONE || t->v[session].sid == p->sid) && (group == TREE_NONE || t->v[group].sid == p->sid);
}

static bool may_share(const struct tree *t, size_t i, uint32_t with, size_t member)
{
	if (with == i)
		return true;
	return with < i && !t->v[i].zombie && !t->v[with].zombie && *(const uint32_t *)((const char *)&t->v[with] + member) == with;
}

static bool shares_sensibly(const struct tree *t, size_t i)
{
	const struct tree_process *p = &t->v[i];

	return may_share(t, i, p->memory, offsetof(struct tree_process, memory)) && may_share(t, i, p->files, offsetof(struct tree_process, files)) &&
	       may_share(t, i, p->fs, offsetof(struct tree_process, fs)) && may_share(t, i, p->handlers, offsetof(struct tree_process, handlers)) &&
	       (p->handlers == i || p->memory == t->v[p->handlers].memory);
}

int tree_validate(const struct tree *t, struct err *e)
{
	if (!t->n || t->n > TREE_PROCESSES_MAX)
		return err_set(e, -EBADMSG, "tree: %zu processes", t->n);
	for (size_t i = 0; i < t->n; i++) {
		const struct tree_process *p = &t->v[i];

		if (!in_range(p))
			return err_set(e, -EBADMSG, "tree: process %d is out of range", p->pid);
		if (i == 0 ? p->parent != TREE_NONE || p->zombie : p->parent >= i || t->v[p->parent].zombie)
			return err_set(e, -EBADMSG, "tree: process %d has no parent that is alive", p->pid);
		if (p->detached && (i == 0 || p->parent != 0 || p->parent_tid || p->zombie || p->space))
			return err_set(e, -EBADMSG, "tree: process %d is detached from what it cannot be", p->pid);
		if (!leaders_agree(t, p))
			return err_set(e, -EBADMSG, "tree: process %d is in session %d and group %d, whose leaders are elsewhere", p->pid, p->sid, p->pgid);
		if (!shares_sensibly(t, i))
			return err_set(e, -EBADMSG, "tree: process %d shares with a process that does not", p->pid);
	}
	return check_unique(t, e);
}

/* --- the message --- */

static uint32_t plus_one(uint32_t index, size_t own)
{
	return index == own ? 0 : index + 1;
}

static void fill(Gw__TreeProcess *m, const struct tree_process *p, size_t i)
{
	gw__tree_process__init(m);
	m->pid = p->pid;
	m->parent_plus_one = p->parent == TREE_NONE ? 0 : p->parent + 1;
	m->parent_tid = p->parent_tid;
	m->pgid = p->pgid;
	m->sid = p->sid;
	m->exit_signal = p->exit_signal;
	m->tty = p->tty;
	m->tpgid = p->tpgid;
	m->zombie = p->zombie;
	m->stopped = p->stopped;
	m->exit_status = p->exit_status;
	m->uid = p->uid;
	m->gid = p->gid;
	m->name = (ProtobufCBinaryData){ strnlen(p->name, sizeof(p->name)), (uint8_t *)(uintptr_t)p->name };
	m->memory_plus_one = plus_one(p->memory, i);
	m->files_plus_one = plus_one(p->files, i);
	m->fs_plus_one = plus_one(p->fs, i);
	m->handlers_plus_one = plus_one(p->handlers, i);
	m->space = p->space;
	m->detached = p->detached;
}

static void fill_number(Gw__TreeNumber *m, const struct tree_number *one)
{
	gw__tree_number__init(m);
	m->number = one->number;
	m->space = one->space;
	m->n_below = one->depth;
	m->below = (int32_t *)(uintptr_t)one->below;
}

int tree_encode(const struct tree *t, uint8_t **ret_data, size_t *ret_len)
{
	cleanup_free Gw__TreeProcess *m = calloc(t->n + 1, sizeof(*m));
	cleanup_free Gw__TreeProcess **pointers = calloc(t->n + 1, sizeof(*pointers));
	cleanup_free Gw__TreeNumber *n = calloc(t->n_numbers + 1, sizeof(*n));
	cleanup_free Gw__TreeNumber **numbers = calloc(t->n_numbers + 1, sizeof(*numbers));
	Gw__Tree msg = GW__TREE__INIT;

	if (!m || !pointers || !n || !numbers)
		return -ENOMEM;
	for (size_t i = 0; i < t->n_numbers; i++) {
		fill_number(&n[i], &t->numbers[i]);
		numbers[i] = &n[i];
	}
	msg.n_numbers = t->n_numbers;
	msg.numbers = numbers;
	msg.n_above = t->n_spaces;
	msg.above = t->above;
	for (size_t i = 0; i < t->n; i++) {
		fill(&m[i], &t->v[i], i);
		pointers[i] = &m[i];
	}
	msg.n_processes = t->n;
	msg.processes = pointers;
	*ret_len = gw__tree__get_packed_size(&msg);
	*ret_data = malloc(*ret_len + 1);
	if (!*ret_data)
		return -ENOMEM;
	gw__tree__pack(&msg, *ret_data);
	return 0;
}

/* 0 stands for its own; what is out of range stays so, for the check. */
static uint32_t minus_one(uint32_t number, size_t own)
{
	return number ? number - 1 : (uint32_t)own;
}

static int take(const Gw__TreeProcess *m, size_t i, struct tree_process *p, struct err *e)
{
	if (m->name.len >= TREE_NAME_MAX)
		return err_set(e, -EBADMSG, "tree: a name of %zu bytes", m->name.len);
	if (m->name.len && memchr(m->name.data, 0, m->name.len))
		return err_set(e, -EBADMSG, "tree: a name with a NUL in it");
	*p = (struct tree_process){
		.pid = m->pid, .parent = m->parent_plus_one ? m->parent_plus_one - 1 : TREE_NONE, .parent_tid = m->parent_tid, .pgid = m->pgid, .sid = m->sid,
		.exit_signal = m->exit_signal, .tty = m->tty, .tpgid = m->tpgid, .zombie = m->zombie, .stopped = m->stopped, .exit_status = m->exit_status,
		.uid = m->uid, .gid = m->gid, .memory = minus_one(m->memory_plus_one, i), .files = minus_one(m->files_plus_one, i),
		.fs = minus_one(m->fs_plus_one, i), .handlers = minus_one(m->handlers_plus_one, i), .space = m->space, .detached = m->detached,
	};
	if (m->name.len)
		memcpy(p->name, m->name.data, m->name.len);
	return 0;
}

static int take_numbers(const Gw__Tree *m, struct tree *t, struct err *e)
{
	if (m->n_numbers > TREE_NUMBERS_MAX || m->n_above > TREE_SPACES_MAX)
		return err_set(e, -EBADMSG, "tree: %zu numbers in %zu pid namespaces", m->n_numbers, m->n_above);
	t->numbers = calloc(m->n_numbers + 1, sizeof(*t->numbers));
	t->above = calloc(m->n_above + 1, sizeof(*t->above));
	if (!t->numbers || !t->above)
		return err_sys(e, ENOMEM, "a tree of processes");
	for (t->n_spaces = 0; t->n_spaces < m->n_above; t->n_spaces++)
		t->above[t->n_spaces] = m->above[t->n_spaces];
	for (; t->n_numbers < m->n_numbers; t->n_numbers++) {
		const Gw__TreeNumber *from = m->numbers[t->n_numbers];
		struct tree_number *one = &t->numbers[t->n_numbers];

		if (from->n_below > TREE_LEVELS_MAX)
			return err_set(e, -EBADMSG, "tree: %zu numbers of %d", from->n_below, from->number);
		*one = (struct tree_number){ .number = from->number, .space = from->space, .depth = (uint32_t)from->n_below };
		for (size_t k = 0; k < from->n_below; k++)
			one->below[k] = from->below[k];
	}
	return 0;
}

int tree_decode(const void *data, size_t len, struct tree *ret_tree, struct err *e)
{
	Gw__Tree *m = gw__tree__unpack(NULL, len, data);
	struct tree t = TREE_INIT;
	int ret = 0;

	if (!m)
		return err_set(e, -EBADMSG, "tree: not a message");
	if (!m->n_processes || m->n_processes > TREE_PROCESSES_MAX)
		ret = err_set(e, -EBADMSG, "tree: %zu processes", m->n_processes);
	if (ret == 0)
		t.v = calloc(m->n_processes, sizeof(*t.v));
	if (ret == 0 && !t.v)
		ret = err_sys(e, ENOMEM, "a tree of processes");
	for (; ret == 0 && t.n < m->n_processes; t.n++)
		ret = take(m->processes[t.n], t.n, &t.v[t.n], e);
	if (ret == 0)
		ret = take_numbers(m, &t, e);
	gw__tree__free_unpacked(m, NULL);
	if (ret == 0)
		ret = tree_validate(&t, e);
	if (ret == 0)
		ret = tree_numbers_validate(&t, e);
	if (ret < 0) {
		tree_free(&t);
		return ret;
	}
	*ret_tree = t;
	return 0;
}
