// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fake_engine.c - migrate_source and migrate_dest without migration, to test the daemon around them
 *
 * freeze-free: makes all four connections, and the destination starts a process that it calls the moved one. pre-copy: refuses.
 * hybrid: in doubt. stop-copy: goes on until cancelled. copy-on-reference: dies.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/util.h"
#include "migrate/migrate.h"
#include "migrate/outcome.h"
#include "migrate/registry.h"
#include "migrate/timeline.h"
#include "wire/conn.h"
#include "wire/frame.h"
#include "wire/hello.h"

#define ENDLESS_MS 30000
#define WAIT_MS 10000

static int say_hello(const struct migrate_request *q, uint8_t *id, unsigned role, struct err *e)
{
	cleanup_close int fd = conn_connect(&q->dest, WAIT_MS, e);
	Gw__Hello hello;
	int r;

	if (fd < 0)
		return fd;
	hello_fill(&hello);
	hello.role = role;
	hello.node_name = (char *)q->self_name;
	hello.mig_id.data = id;
	hello.mig_id.len = HELLO_MIG_ID_BYTES;
	r = hello_send(fd, &hello, e);
	return r < 0 ? r : take_fd(&fd);
}

/* The destination's daemon must know of the commit. */
static int ask(const struct migrate_request *q, uint8_t *id, struct err *e)
{
	char boot_id[OUTCOME_BOOT_ID_MAX];
	enum outcome outcome;
	Gw__Hello hello;
	int r;

	hello_fill(&hello);
	hello.node_name = (char *)q->self_name;
	hello.mig_id.data = id;
	hello.mig_id.len = HELLO_MIG_ID_BYTES;
	r = outcome_ask(&q->dest, &hello, WAIT_MS, &outcome, boot_id, e);
	if (r < 0)
		return r;
	return outcome == OUTCOME_COMMITTED && !strcmp(boot_id, hello.boot_id) ? 0 : err_set(e, -EPROTO, "outcome %s", outcome_name(outcome));
}

static int move(const struct migrate_request *q, struct migrate_report *report, struct err *e)
{
	cleanup_frame struct frame frame = { 0 };
	uint8_t id[HELLO_MIG_ID_BYTES];
	int control, role, r;

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return -EIO;
	control = say_hello(q, id, ROLE_CONTROL, e);
	if (control < 0)
		return control;
	r = frame_recv_expect(control, FRAME_ACCEPT, &frame, 0, WAIT_MS, e);
	for (role = ROLE_GO; role <= ROLE_BULK && r >= 0; role++) {
		cleanup_close int fd = say_hello(q, id, (unsigned)role, e);

		r = fd < 0 ? fd : frame_send(fd, FRAME_ROUND, &role, sizeof(role), e);
		if (r >= 0)
			r = frame_recv_expect(fd, FRAME_PREPARED, &frame, 0, WAIT_MS, e);
	}
	if (r >= 0)
		r = frame_recv_expect(control, FRAME_RESUMED, &frame, sizeof(pid_t), WAIT_MS, e);
	if (r >= 0)
		r = ask(q, id, e);
	if (r < 0)
		return r;
	memcpy(&report->new_pid, frame.payload, sizeof(pid_t));
	report->outcome = "moved";
	report->freeze_us = 150;
	report->total_ms = 12.5;
	report->pages_total = 100;
	report->pages_sent = 90;
	report->bytes_sent = 90 * 4096;
	return 0;
}

int migrate_source(const struct migrate_request *q, struct migrate_report *report, struct refusals *refusals, struct err *e)
{
	switch (q->strategy) {
	case STRATEGY_FREEZE_FREE:
		timeline_begin();
		timeline_step("hello");
		timeline_mark("greeted");
		timeline_step("offer");
		report->phase = "offer";
		report->attempts = 1;
		q->progress(report, q->progress_arg);
		report->stopped_at_ns = clock_ns(CLOCK_REALTIME);
		return move(q, report, e);
	case STRATEGY_PRE_COPY:
		refusals_add(refusals, "fd.socket", "connections cannot move yet", "close it first", "fd %d (TCP)", 7);
		refusals_add(refusals, "vma.hugetlb", "huge pages of hugetlbfs cannot move yet", "do without", "mapping %d", 3);
		return -EPERM;
	case STRATEGY_HYBRID:
		report->outcome = "in-doubt";
		return err_set(e, -ECONNRESET, "the link broke after the go message");
	case STRATEGY_STOP_COPY:
		report->phase = "rounds";
		/* A test that fails may leave nobody who cancels. */
		for (int i = 0; i < ENDLESS_MS / 10; i++) {
			if (q->progress(report, q->progress_arg))
				return err_set(e, -ECANCELED, "cancelled before the commit");
			poll(NULL, 0, 10);
		}
		return err_set(e, -ETIMEDOUT, "nobody has cancelled");
	default:
		abort();
	}
}

static int take_handed(int handoff, struct link_handoff *ret_what)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { ret_what, sizeof(*ret_what) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int fd = -1;

	if (recvmsg(handoff, &msg, MSG_CMSG_CLOEXEC) == (ssize_t)sizeof(*ret_what) && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

int migrate_dest(int control, const void *hello_payload, size_t hello_len, int handoff, const char *self_name, char ret_unit[MIGRATE_UNIT_MAX], struct err *e)
{
	cleanup_hello Gw__Hello *hello = NULL;
	struct registry_entry entry = { .strategy = "freeze-free", .freeze_us = 150, .moves = 1 };
	int record = -1, i, r = hello_decode(hello_payload, hello_len, &hello, e);

	*ret_unit = 0;
	if (r >= 0)
		r = record = outcome_begin(hello->mig_id.data, e);
	if (r >= 0)
		r = frame_send(control, FRAME_ACCEPT, NULL, 0, e);
	for (i = ROLE_GO; i <= ROLE_BULK && r >= 0; i++) {
		cleanup_frame struct frame frame = { 0 };
		struct link_handoff what = { 0 };
		cleanup_close int fd = take_handed(handoff, &what);
		int said = -1;

		r = frame_recv_expect(fd, FRAME_ROUND, &frame, sizeof(said), WAIT_MS, e);
		if (r >= 0)
			memcpy(&said, frame.payload, sizeof(said));
		if (r >= 0 && (said != (int)what.role || said != i || fcntl(fd, F_GETFL) & O_NONBLOCK))
			r = err_set(e, -EPROTO, "role %d handed on as %u", said, what.role);
		if (r >= 0)
			r = frame_send(fd, FRAME_PREPARED, NULL, 0, e);
	}
	if (r < 0)
		return r;
	entry.pid = fork();
	if (!entry.pid) {
		close_range(3, ~0u, 0);
		execlp("sleep", "sleep", "60", NULL);
		_exit(127);
	}
	snprintf(entry.unit, sizeof(entry.unit), "%s:4711", hello->node_name);
	snprintf(entry.from, sizeof(entry.from), "%s", hello->node_name);
	r = registry_add(&entry, e);
	if (r >= 0)
		r = outcome_commit(record, e);
	return r < 0 ? r : frame_send(control, FRAME_RESUMED, &entry.pid, sizeof(entry.pid), e);
}

void migrate_init(int ret_keep[MIGRATE_KEEP_FDS])
{
	ret_keep[0] = ret_keep[1] = -1;
}

int migrate_check(pid_t pid, const pid_t *also, size_t n_also, const struct caller *caller, struct refusals *refusals, struct err *e)
{
	(void)caller;
	if (pid == 1)
		refusals_add(refusals, "task.init", "init cannot move", "leave it", "process %d", pid);
	return refusals->n ? -EPERM : 0;
}
