/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_running.c - the source's side of the tables: looking at them while the unit runs
 *
 * Theory of operation: whoever looks at a description by a duplicate keeps it open. What the program closes meanwhile is not closed: its address is taken, locks are held, who
 * reads the other end of a pipe sees no end, and sets of epoll go on to tell of it under a number that may be another one's by then. So numbers are matched with descriptions by
 * records alone (file_freeze.c), TCP sockets are looked at by what is told of them (file_kin.c), and of the rest the worker has one duplicate at a time, for as long as
 * that one is looked at. It is the very description that the record was of: it is asked for in the worker's own table, as a number may have got another one since.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/file_state.h"
#include "image/socket_options.h"
#include "kern/tcp_peek.h"

/* What all sockets have in common. */
static struct {
	bool known;
	uint64_t operations, dev;
} sockets;

static void learn_sockets(void)
{
	cleanup_close int fd = sockets.known ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct file_record r;
	struct stat st;

	if (fd < 0 || !file_reader_ask(fdtable_reader(), 0, fd, &r) || fstat(fd, &st) < 0)
		return;
	sockets.operations = r.kind;
	sockets.dev = st.st_dev;
	sockets.known = true;
}

bool fdtable_is_socket(const struct fd_held *held)
{
	learn_sockets();
	return sockets.known && held->dev == sockets.dev;
}

uint64_t fdtable_own_net(void)
{
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct tcp_told *told = fd < 0 ? NULL : tcp_peek_told();

	if (!told)
		return 0;
	told[0].fd = fd;
	return tcp_peek_ask(0, 1) == 0 && told[0].is_told ? told[0].record.net : 0;
}

int fdtable_find_inode(const struct fd_view *view, const struct file_record *r, struct fd_held *ret)
{
	struct statx st;
	char name[16];

	snprintf(name, sizeof(name), "%u", r->fd);
	/* What never changes about a file: where it is served by another host, that one is not asked. */
	if (statx(view->fd_dir, name, AT_STATX_DONT_SYNC, STATX_INO, &st) < 0 || st.stx_ino != r->number)
		return 0;
	*ret = (struct fd_held){ .fd = -1, .dev = makedev(st.stx_dev_major, st.stx_dev_minor), .ino = st.stx_ino };
	return 1;
}

const struct file_record *fdtable_record_of(const struct fdtable *t, uint32_t desc)
{
	const struct fd_held *held = &t->held[desc];
	const struct fd_view *view = &t->views[held->view];

	return held->loose || !held->uses || held->slot >= view->n_records ? NULL : &view->records[held->slot];
}

int fdtable_hold(struct fdtable *t, uint32_t desc, struct err *e)
{
	struct fd_held *held = &t->held[desc];
	const struct fd_view *view = &t->views[held->view];
	struct file_record r;
	int fd;

	if (held->fd >= 0)
		return 1;
	if (held->loose || !held->uses)
		return 0;
	fd = (int)syscall(SYS_pidfd_getfd, view->pidfd, fdtable_number_of(t, desc)->fd, 0);
	if (fd < 0)
		return errno == EBADF ? 0 : err_sys(e, errno == ESRCH ? -EAGAIN : -errno, "pid %d: fetching its descriptor %d", (int)view->pid, fdtable_number_of(t, desc)->fd);
	if (!file_reader_ask(fdtable_reader(), 0, fd, &r) || r.file != held->file || r.inode != held->inode) {
		close(fd);
		return 0;
	}
	t->holding = true;
	held->fd = fd;
	return 1;
}

void fdtable_let_go(struct fdtable *t, uint32_t desc)
{
	/* One in flight cannot be fetched again. */
	if (!t->held[desc].loose)
		close_fdp(&t->held[desc].fd);
}

bool fdtable_is_still_there(const struct fdtable *t, uint32_t desc)
{
	const struct file_record *was = fdtable_record_of(t, desc);
	struct file_record now;

	return !was || (file_reader_ask(fdtable_reader(), was->process, (int)was->fd, &now) && now.file == was->file && now.inode == was->inode);
}

/* Whether it may be a unix socket: a socket that is known as one, or of which nothing is known but that it is not TCP's. */
static bool may_be_unix(const struct fdtable *t, uint32_t desc)
{
	const struct fd_held *held = &t->held[desc];
	const struct file_record *r = fdtable_record_of(t, desc);

	if (held->closed || held->settled || !r || !fdtable_is_socket(held))
		return false;
	return held->known && !held->refused ? t->msg->descs[desc]->kind == GW__FD_KIND__FD_UNIX : !r->digest;
}

int fdtable_hold_unix(struct fdtable *t, struct err *e)
{
	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		int ret = may_be_unix(t, i) ? fdtable_hold(t, i, e) : -1;

		if (ret == 0)
			return err_set(e, -EAGAIN, "a unix socket has been closed");
		if (ret < 0 && may_be_unix(t, i))
			return ret;
		if (ret > 0 && socket_get_int(t->held[i].fd, SOL_SOCKET, SO_DOMAIN) != AF_UNIX)
			fdtable_let_go(t, i);
	}
	return 0;
}

/* --- TCP sockets --- */

static void ask_some(struct fd_view *view, struct tcp_told *told, const uint32_t *at, size_t n, uint8_t *is_gone)
{
	for (size_t i = 0; i < n; i++)
		told[i].fd = (int)view->records[at[i]].fd;
	if (tcp_peek_ask(view->records[at[0]].process, n) < 0)
		n = 0;
	for (size_t i = 0; i < n; i++) {
		bool same = told[i].is_told && told[i].file == view->records[at[i]].file;

		if (same)
			view->told[at[i]] = told[i];
		else if (is_gone)
			is_gone[at[i]] = 1;
	}
}

void fdtable_ask_tcp(struct fd_view *view, const uint8_t *wanted, uint8_t *is_gone)
{
	cleanup_free uint32_t *at = fd_alloc(view->n_records * sizeof(*at));
	struct tcp_told *told = tcp_peek_told();
	size_t n = 0;

	learn_sockets();
	for (size_t i = 0; i < view->n_records; i++)
		if (view->records[i].digest && view->records[i].kind == sockets.operations && (!wanted || wanted[i]))
			at[n++] = (uint32_t)i;
	free(view->told);
	view->told = told && n ? fd_alloc(view->n_records * sizeof(*view->told)) : NULL;
	for (size_t from = 0; view->told && from < n; from += TCP_ASKED_MAX)
		ask_some(view, told, at + from, MIN(n - from, TCP_ASKED_MAX), is_gone);
}

const struct tcp_told *fdtable_told(const struct fdtable *t, uint32_t desc)
{
	const struct fd_held *held = &t->held[desc];
	const struct tcp_told *told = fdtable_record_of(t, desc) ? t->views[held->view].told : NULL;

	return told && told[held->slot].is_told && told[held->slot].file == held->file ? &told[held->slot] : NULL;
}
