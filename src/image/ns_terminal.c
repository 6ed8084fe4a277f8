/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_terminal.c - terminals that are mounted one by one; see ns_terminal.h */
#include "image/ns_terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns_mount.h"
#include "image/pty.h"
#include "kern/fdpass.h"

/* In the holder or in the worker. */
static struct {
	struct ns_terminals t;
	int master[NS_TERMINALS_MAX];
} own;

bool ns_terminal_is(const char *type, const char *root, uint32_t *ret_number)
{
	char *end;
	unsigned long number;

	if (strcmp(type, "devpts") || root[0] != '/' || root[1] < '0' || root[1] > '9')
		return false;
	number = strtoul(root + 1, &end, 10);
	*ret_number = (uint32_t)number;
	return !*end && number < PTYS_MAX;
}

static bool is_mount_of(const Gw__Namespaces *msg, size_t i, uint32_t *ret_number)
{
	const Gw__NsMount *m = msg->mounts[i];

	return m->fs && ns_terminal_is(msg->fs[m->fs - 1]->type, m->root, ret_number);
}

static bool is_known(const Gw__FdTable *t, uint32_t number)
{
	for (size_t i = 0; i < t->n_ptys; i++)
		if (t->ptys[i]->number == number && t->ptys[i]->master_path[0])
			return true;
	return false;
}

void ns_terminals_check(const Gw__Namespaces *msg, const Gw__FdTable *t, struct refusals *r)
{
	uint32_t number;

	for (size_t i = 0; i < msg->n_mounts; i++)
		if (is_mount_of(msg, i, &number) && !is_known(t, number))
			refusals_add(r, "ns.mount", "a terminal is mounted there that no process of the unit has open", "unmount it", "mount %s (/dev/pts/%u)", msg->mounts[i]->where, number);
}

/* --- making --- */

static int find(uint32_t number)
{
	for (uint32_t k = 0; k < own.t.n; k++)
		if (own.t.number[k] == number)
			return own.master[k];
	return -1;
}

int ns_terminals_make(const Gw__Namespaces *msg, size_t fs, int top, struct err *e)
{
	uint32_t number;

	for (size_t i = 0; i < msg->n_mounts; i++) {
		int fd;

		if (msg->mounts[i]->fs != fs + 1 || !is_mount_of(msg, i, &number) || find(number) >= 0)
			continue;
		if (own.t.n == NS_TERMINALS_MAX)
			return err_set(e, -E2BIG, "more than %u terminals are mounted", NS_TERMINALS_MAX);
		fd = pty_make_master(top, "ptmx", number, false, e);
		if (fd < 0) {
			err_wrap(e, "a terminal that is mounted");
			return fd;
		}
		own.t.number[own.t.n] = number;
		own.master[own.t.n++] = fd;
	}
	return 0;
}

void ns_terminals_settle(struct ns_terminals *ret, int fd, int *ret_moved)
{
	int n = (int)own.t.n, moved = fcntl(fd, F_DUPFD, NS_HIGH_FD);

	for (int k = 0; k < n; k++)
		own.master[k] = fcntl(own.master[k], F_DUPFD, NS_HIGH_FD);
	for (int k = 0; k < n; k++)
		dup2(own.master[k], k);
	*ret_moved = dup2(moved, n);
	syscall(SYS_close_range, n + 1, ~0u, 0);
	*ret = own.t;
}

int ns_terminals_take(pid_t holder, const struct ns_terminals *t, struct err *e)
{
	cleanup_close int pidfd = t->n ? pidfd_open_process(holder, e) : -1;

	if (t->n && pidfd < 0)
		return pidfd;
	for (uint32_t k = 0; k < t->n && k < NS_TERMINALS_MAX; k++) {
		int fd = pidfd_get(pidfd, (int)k, e);

		if (fd < 0)
			return fd;
		own.t.number[own.t.n] = t->number[k];
		own.master[own.t.n++] = fd;
	}
	return 0;
}

int ns_terminal_open(uint32_t number)
{
	int master = find(number);

	return master < 0 ? -1 : fcntl(master, F_DUPFD_CLOEXEC, 0);
}

bool ns_terminal_is_made(uint32_t number)
{
	return find(number) >= 0;
}

void ns_terminals_free(void)
{
	while (own.t.n)
		close(own.master[--own.t.n]);
}
