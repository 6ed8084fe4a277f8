/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest_home.c - a unit that comes home; see dest_home.h */
#include "migrate/dest_home.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/util.h"
#include "home/channel.h"
#include "image/process_check.h"
#include "kern/fdpass.h"
#include "migrate/dest.h"

#define ANSWER_MS 2000
#define SETTLE_MS 3000 /* the unit stands still meanwhile */

static int receive_answer(int door, struct door_answer *ret, int timeout_ms, struct err *e)
{
	struct pollfd p = { door, POLLIN, 0 };

	if (poll(&p, 1, timeout_ms) <= 0 || door_receive(door, ret, sizeof(*ret), NULL, 0, NULL, NULL) != (ssize_t)sizeof(*ret))
		return err_set(e, -ETIMEDOUT, "the process that cares for the unit at home does not answer");
	ret->why[sizeof(ret->why) - 1] = 0;
	return ret->pid < 0 ? err_set(e, -EPERM, "%s", ret->why) : 0;
}

static enum relay_kind relay_kind(uint32_t kind)
{
	if (kind & CHANNEL_TERMINAL)
		return RELAY_TERMINAL;
	return kind & CHANNEL_SOCKET ? RELAY_SOCKET : kind & CHANNEL_READS ? RELAY_UNIT_READS : RELAY_UNIT_WRITES;
}

static int receive_originals(struct dest_home *h, size_t n, struct err *e)
{
	struct fd_relays *r = &h->originals;

	r->v = calloc(n + 1, sizeof(*r->v));
	if (!r->v || n > RELAYS_MAX)
		return err_sys(e, ENOMEM, "relays");
	while (r->n < n) {
		struct pollfd p = { h->seat.door, POLLIN, 0 };
		struct door_relay relay;
		size_t got = 0;
		int fd = -1;

		if (poll(&p, 1, ANSWER_MS) <= 0 || door_receive(h->seat.door, &relay, sizeof(relay), &fd, 1, &got, NULL) != (ssize_t)sizeof(relay) || got != 1)
			return err_set(e, -ETIMEDOUT, "the process that cares for the unit at home does not answer");
		if (relay.kind & CHANNEL_TERMINAL)
			h->terminal.fd = fd;
		r->v[r->n++] = (struct fd_relay){ .id = relay.id, .kind = relay_kind(relay.kind), .fd = fd };
	}
	return 0;
}

static int read_place(struct dest_home *h, struct err *e)
{
	struct process_stat stat;
	int ret = process_stat_read(h->seat.pid, &stat, e);

	h->session = ret < 0 ? 0 : stat.sid;
	h->group = ret < 0 ? 0 : stat.pgid;
	return ret < 0 ? err_set(e, -ESRCH, "the stub %d is gone", h->seat.pid) : 0;
}

/* Whether a number is somebody's here. The root's is the stub's. */
static bool is_free(const struct dest *d)
{
	for (size_t i = 0; i < d->offered.tree.n; i++)
		if (i && (kill(d->offered.tree.v[i].pid, 0) == 0 || errno != ESRCH))
			return false;
	for (size_t i = 0; i < d->nprocs; i++)
		for (size_t k = 1; k < d->procs[i].nthreads; k++)
			if (kill(d->procs[i].threads[k]->tid, 0) == 0 || errno != ESRCH)
				return false;
	return true;
}

static bool is_home(const struct dest *d)
{
	size_t len = strlen(d->self_name);

	return d->offer->home && !strncmp(d->offer->unit, d->self_name, len) && d->offer->unit[len] == ':';
}

/* /dev/tty is the terminal of whoever opens it: only the root's, in its stub's place, is the one that is meant. */
static int open_tty(void *arg, int flags, struct err *e)
{
	struct dest *d = arg;
	struct skeleton *root = d->procs[0].skeleton;
	struct batch *b = root->threads[0]->batch;
	int64_t number = remote_do(b, e, "opening /dev/tty", SYS_openat, AT_FDCWD, batch_string(b, "/dev/tty"), (uint64_t)flags | O_NOCTTY);
	int fd;

	if (number < 0)
		return (int)number;
	fd = pidfd_get(root->pidfd, (int)number, e);
	remote_do(b, NULL, "close", SYS_close, (uint64_t)number);
	return fd;
}

static int look_at_terminal(struct dest *d, struct err *e)
{
	struct pty_home *home = &d->home.terminal;
	int index = fdtable_relayed_terminal(d->fds);

	if (index < 0)
		return 0;
	if (home->fd < 0)
		return err_set(e, -EPERM, "its terminal is not known at home");
	for (size_t i = 0; i < d->fds->n_descs; i++)
		if (pty_is_kind(d->fds->descs[i]->kind) && d->fds->descs[i]->index == (uint32_t)index && d->fds->descs[i]->hung_up)
			return err_set(e, -EPERM, "it has descriptors of a terminal that has been hung up");
	home->open_tty = open_tty;
	home->arg = d;
	return 0;
}

static int ask(struct dest *d, struct err *e)
{
	struct dest_home *h = &d->home;
	const uint8_t word = DOOR_ASK;
	struct door_answer a = { 0 };
	int ret;

	h->seat.door = ret = door_connect(d->offer->unit, e);
	if (ret < 0)
		return ret;
	ret = door_send(h->seat.door, &word, 1, NULL, 0, e);
	if (ret == 0)
		ret = receive_answer(h->seat.door, &a, ANSWER_MS, e);
	if (ret == 0)
		ret = receive_originals(h, a.relays, e);
	h->seat.pid = a.pid;
	if (ret == 0)
		ret = look_at_terminal(d, e);
	if (ret == 0 && a.pid && a.pid != d->procs[0].pid)
		ret = err_set(e, -ESRCH, "the stub is process %d", a.pid);
	if (ret == 0 && a.pid && d->offered.ns)
		ret = err_set(e, -EPERM, "it has namespaces of its own");
	if (ret == 0 && a.pid && !is_free(d))
		ret = err_set(e, -EPERM, "a number of the unit is taken here");
	if (ret == 0 && a.pid)
		ret = read_place(h, e);
	return ret;
}

void dest_home_ask(struct dest *d)
{
	struct err why = ERR_INIT;

	if (!is_home(d) || ask(d, &why) == 0)
		return;
	log_info("event=behind-the-stub unit=%s text=\"%s\"", d->offer->unit, why.message);
	dest_home_free(d);
}

static int write_part(int fd, uint32_t id, const ProtobufCBinaryData *data, struct err *e)
{
	const struct door_rest head = { id, (uint32_t)data->len };

	if (data->len && (write(fd, &head, sizeof(head)) != (ssize_t)sizeof(head) || write(fd, data->data, data->len) != (ssize_t)data->len))
		return err_sys(e, -errno, "what lies in relays");
	return 0;
}

static int write_terminal(int fd, const Gw__FdPty *p, struct err *e)
{
	const struct {
		uint32_t part;
		const ProtobufCBinaryData *data;
	} list[] = { { REST_OUTPUT, &p->master->queue }, { REST_OUTPUT, &p->master->waiting }, { REST_TYPED, &p->slave->queue }, { REST_TYPED_BEHIND, &p->slave->waiting },
		     { REST_MODES, &p->termios }, { REST_WINDOW, &p->window } };
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(list) && ret == 0; i++)
		ret = write_part(fd, list[i].part, list[i].data, e);
	return ret;
}

static int write_rest(int fd, const Gw__FdTable *t, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < t->n_pipes && ret == 0; i++)
		if (t->pipes[i]->relay)
			ret = write_part(fd, t->pipes[i]->relay_id, &t->pipes[i]->data, e);
	for (size_t i = 0; i < t->n_ptys && ret == 0; i++)
		if (t->ptys[i]->relay)
			ret = write_terminal(fd, t->ptys[i], e);
	return ret;
}

int dest_home_settle(struct dest *d, struct err *e)
{
	const struct door_settle word = { DOOR_SETTLE, d->go.msg->home_handled, d->go.msg->home_sent };
	cleanup_close int fd = -1;
	int ret;

	if (!dest_home_comes(&d->home))
		return 0;
	if (d->restore.n_relays)
		return err_set(e, -EAGAIN, "relay %u of the unit is not known at home", d->restore.relays[0].id);
	fd = memfd_create("godwit-rest", MFD_CLOEXEC);
	if (fd < 0)
		return err_sys(e, -errno, "memfd_create");
	ret = write_rest(fd, d->go.fds, e);
	return ret < 0 ? ret : door_send(d->home.seat.door, &word, sizeof(word), &fd, 1, e);
}

int dest_home_settled(struct dest *d, struct err *e)
{
	struct door_answer a;

	return dest_home_comes(&d->home) ? receive_answer(d->home.seat.door, &a, SETTLE_MS, e) : 0;
}

void dest_home_back(void *arg)
{
	struct dest *d = arg;
	const uint8_t word = DOOR_BACK;
	struct door_answer a;
	struct err e = ERR_INIT;

	if (!dest_home_comes(&d->home))
		return;
	/* As long as it takes: a reader may have filled the pipe's new room meanwhile. */
	if (door_send(d->home.seat.door, &word, 1, NULL, 0, &e) < 0 || receive_answer(d->home.seat.door, &a, -1, &e) < 0)
		log_error("event=home-lost text=\"%s\"", e.message);
}

void dest_home_free(struct dest *d)
{
	struct dest_home *h = &d->home;

	for (size_t i = 0; i < h->originals.n; i++)
		close_fdp(&h->originals.v[i].fd);
	fd_relays_free(&h->originals);
	close_fdp(&h->seat.door);
	*h = DEST_HOME_INIT;
}
