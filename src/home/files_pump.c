/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files_pump.c - the process godwit-relay; see files_pump.h */
#include "home/files_pump.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/util.h"
#include "home/files_asked.h"
#include "home/files_link.h"
#include "home/keep.h"
#include "wire/conn.h"
#include "wire/hello.h"

#define CONNECT_MS 5000
#define CONNECT_NS 2000000000ull
#define RETRY_NS 500000000ull
#define PATIENCE_NS 5000000000ull /* after the end of a connection, which takes as long as a peer may be silent (conn_tune) */
#define LAST_NS 2000000000ull     /* for home to hear that there will be no more */
#define UNKNOWN_TRIES 6           /* godwitd at home may just be starting */
#define REQUEST_MAX ((1u << 20) + 4096u)

struct pump {
	struct sockaddr_in home;
	char self_name[HELLO_NAME_MAX + 1];
	uint8_t session[FILES_TOKEN_BYTES];
	int fuse;
	struct files_link link;
	int connecting;       /* -1, or a connection that is being made */
	uint64_t *waiting;    /* numbers of requests that the kernel waits for */
	size_t n_waiting, room;
	struct files_asked asked;
	uint64_t lost_ns, next_try_ns;
	unsigned unknown;
	bool dead;            /* home knows nothing of the relay */
	bool hopeless;        /* home could not be reached for too long */
	bool over;            /* unmounted */
};

/* --- what the kernel waits for --- */

static bool has_answer(uint32_t opcode)
{
	return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

static void wait_for(struct pump *p, uint64_t unique)
{
	if (p->n_waiting == p->room) {
		p->room = p->room ? 2 * p->room : 64;
		p->waiting = realloc(p->waiting, p->room * sizeof(*p->waiting));
		if (!p->waiting)
			abort();
	}
	p->waiting[p->n_waiting++] = unique;
}

static bool wait_is_over(struct pump *p, uint64_t unique)
{
	for (size_t i = 0; i < p->n_waiting; i++)
		if (p->waiting[i] == unique) {
			p->waiting[i] = p->waiting[--p->n_waiting];
			return true;
		}
	return false;
}

static void fail(struct pump *p, uint64_t unique)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = -EIO, .unique = unique };

	(void)!write(p->fuse, &out, sizeof(out));
}

static void fail_all(struct pump *p)
{
	while (p->n_waiting)
		fail(p, p->waiting[--p->n_waiting]);
}

/* --- requests and answers --- */

static void take_answer(void *arg, const uint8_t *data, size_t len)
{
	struct pump *p = arg;
	struct fuse_out_header head;

	if (len < sizeof(head))
		return;
	memcpy(&head, data, sizeof(head));
	/* One that has been answered with EIO is not answered again; 0 is a notification. */
	if (head.unique && !wait_is_over(p, head.unique))
		return;
	files_asked_answered(&p->asked, data, len);
	if (write(p->fuse, data, len) < 0 && errno == ENODEV)
		p->over = true;
}

/* Whether the request has been answered here. */
static bool answer_here(struct pump *p, const uint8_t *request, size_t len)
{
	size_t answer_len;
	const uint8_t *answer = files_asked_request(&p->asked, request, len, &answer_len);

	return answer && write(p->fuse, answer, answer_len) == (ssize_t)answer_len;
}

static void take_request(struct pump *p)
{
	static uint8_t *buffer; /* only here is it needed, not in each worker */
	struct fuse_in_header head;

	if (!buffer)
		buffer = malloc(REQUEST_MAX);
	if (!buffer)
		return; /* asked again at once */

	for (int i = 0; i < 64 && !p->over; i++) {
		ssize_t n = read(p->fuse, buffer, REQUEST_MAX);

		if (n < 0 && errno == ENODEV)
			p->over = true;
		if (n < (ssize_t)sizeof(head))
			return;
		memcpy(&head, buffer, sizeof(head));
		if (p->dead || p->hopeless) {
			if (has_answer(head.opcode))
				fail(p, head.unique);
			if (p->dead || has_answer(head.opcode))
				continue;
		} else if (answer_here(p, buffer, (size_t)n)) {
			continue;
		} else if (has_answer(head.opcode)) {
			wait_for(p, head.unique);
		}
		if (files_link_send(&p->link, &(struct iovec){ buffer, (size_t)n }, 1) < 0)
			abort();
	}
}

/* --- the connection --- */

static int greet(int fd, const char *self_name, const uint8_t name[FILES_TOKEN_BYTES], struct err *e)
{
	Gw__Hello hello;

	hello_fill(&hello);
	hello.role = ROLE_HOME;
	hello.node_name = (char *)(uintptr_t)self_name;
	hello.mig_id = (ProtobufCBinaryData){ FILES_TOKEN_BYTES, (uint8_t *)(uintptr_t)name };
	return hello_send(fd, &hello, e);
}

static void lose(struct pump *p, const struct err *e)
{
	log_debug("event=file-relay-broken text=\"%s\"", e->message);
	/* What godwitd at home answers for a session that is not there. */
	p->unknown = e->code == -ENOENT ? p->unknown + 1 : p->unknown;
	if (p->unknown >= UNKNOWN_TRIES)
		p->dead = true;
	files_link_detach(&p->link);
	files_asked_forget(&p->asked);
	if (!p->lost_ns)
		p->lost_ns = clock_ns(CLOCK_MONOTONIC);
	p->next_try_ns = clock_ns(CLOCK_MONOTONIC) + RETRY_NS;
}

static void begin_connection(struct pump *p)
{
	struct err e = ERR_INIT;

	p->connecting = conn_begin(&p->home, &e);
	p->next_try_ns = clock_ns(CLOCK_MONOTONIC) + CONNECT_NS;
	if (p->connecting < 0)
		lose(p, &e);
}

static void end_connection(struct pump *p)
{
	struct err e = ERR_INIT;
	int ret = conn_finish(p->connecting, &p->home, &e);

	if (ret == 0)
		ret = greet(p->connecting, p->self_name, p->session, &e);
	if (ret == 0) {
		files_link_attach(&p->link, take_fd(&p->connecting));
		return;
	}
	close_fdp(&p->connecting);
	lose(p, &e);
}

/* Nothing here waits for home: the kernel's requests are to be answered meanwhile. */
static void see_to_connection(struct pump *p)
{
	if (p->link.fd >= 0 || p->dead || clock_ns(CLOCK_MONOTONIC) < p->next_try_ns)
		return;
	close_fdp(&p->connecting); /* no answer */
	begin_connection(p);
}

static int wait_ms(const struct pump *p)
{
	return p->link.fd >= 0 || p->dead ? -1 : 100;
}

static void pump_once(struct pump *p)
{
	struct pollfd f[3] = { { p->fuse, POLLIN, 0 }, { p->link.fd, POLLIN | (files_link_wants_out(&p->link) ? POLLOUT : 0), 0 },
			       { p->connecting, conn_decided(p->connecting), 0 } };
	struct err e = ERR_INIT;
	int ret = 0;

	poll(f, 3, wait_ms(p));
	if (f[1].revents & (POLLIN | POLLHUP | POLLERR))
		ret = files_link_input(&p->link, take_answer, p, &e);
	if (ret >= 0 && p->link.resumed) {
		p->lost_ns = 0;
		p->unknown = 0;
		p->hopeless = false;
	}
	if (f[0].revents)
		take_request(p);
	if (ret >= 0)
		ret = files_link_output(&p->link, &e);
	if (ret < 0)
		lose(p, &e);
	if (f[2].revents)
		end_connection(p);
	see_to_connection(p);
	if (p->lost_ns && clock_ns(CLOCK_MONOTONIC) - p->lost_ns > PATIENCE_NS)
		p->hopeless = true;
	if (p->dead || p->hopeless)
		fail_all(p);
}

static void say_goodbye(struct pump *p)
{
	uint64_t end = clock_ns(CLOCK_MONOTONIC) + LAST_NS;

	files_link_send(&p->link, NULL, 0);
	while (p->link.fd >= 0 && !files_link_settled(&p->link) && clock_ns(CLOCK_MONOTONIC) < end) {
		struct pollfd f = { p->link.fd, POLLIN, 0 };

		if (files_link_output(&p->link, NULL) < 0)
			return;
		poll(&f, 1, 50);
		if (f.revents && files_link_input(&p->link, take_answer, p, NULL) < 0)
			return;
	}
}

static bool is_wanted(const void *arg, int fd)
{
	const struct pump *p = arg;

	return fd == p->fuse || fd == p->link.fd;
}

static void __attribute__((noreturn)) run(struct pump *p)
{
	keep_begin("godwit-relay", is_wanted, p);
	fcntl(p->fuse, F_SETFL, fcntl(p->fuse, F_GETFL) | O_NONBLOCK);
	while (!p->over)
		pump_once(p);
	say_goodbye(p);
	_exit(0);
}

int files_pump_connect(const struct sockaddr_in *home, const char *self_name, const uint8_t token[FILES_TOKEN_BYTES], uint8_t ret_session[FILES_TOKEN_BYTES], struct err *e)
{
	cleanup_close int fd = conn_connect(home, CONNECT_MS, e);
	int ret = fd < 0 ? fd : greet(fd, self_name, token, e);

	if (ret < 0)
		return err_wrap(e, "the files that home serves"), ret;
	if (getrandom(ret_session, FILES_TOKEN_BYTES, 0) != (ssize_t)FILES_TOKEN_BYTES)
		return err_sys(e, -errno, "random numbers");
	ret = frame_send(fd, FRAME_FILES_OPEN, ret_session, FILES_TOKEN_BYTES, e);
	return ret < 0 ? ret : take_fd(&fd);
}

int files_pump_start(const struct sockaddr_in *home, const char *self_name, const uint8_t session[FILES_TOKEN_BYTES], int fuse, int fd, struct err *e)
{
	static struct pump p;
	int ret;

	p = (struct pump){ .home = *home, .fuse = fuse, .link = FILES_LINK_INIT, .connecting = -1 };
	snprintf(p.self_name, sizeof(p.self_name), "%s", self_name);
	memcpy(p.session, session, sizeof(p.session));
	ret = keep_fork();
	if (ret == 0) {
		files_link_attach(&p.link, fd);
		run(&p);
	}
	return ret < 0 ? err_sys(e, ret, "fork") : 0;
}
