/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files_serve.c - the processes godwit-files; see files_serve.h */
#include "home/files_serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "home/door.h"
#include "home/files_fs.h"
#include "home/files_link.h"
#include "home/files_listen.h"
#include "home/keep.h"

#define LOST_NS 600000000000ull /* a session without a connection ends after so long */
#define LOCK_TICK_MS 3
#define IDLE_MS 1000
#define OPEN_MS 5000

/* --- a session --- */

struct serving {
	struct files_fs *fs;
	struct files_link link;
	int door;
	bool over;
};

static void answer(void *arg, const struct iovec *iov, size_t n)
{
	struct serving *s = arg;

	if (files_link_send(&s->link, iov, n) < 0)
		s->over = true;
}

static void take_request(void *arg, const uint8_t *data, size_t len)
{
	struct serving *s = arg;

	if (!len) {
		s->over = true;
	} else if (files_fs_handle(s->fs, data, len) < 0) {
		log_warning("event=file-relay-nonsense len=%zu", len);
		s->over = true;
	}
}

/* A connection that godwitd hands over at a door. -1: something else. */
static int take_connection(int door)
{
	cleanup_close int guest = accept4(door, NULL, NULL, SOCK_CLOEXEC);
	uint8_t word = 0;
	size_t n = 0;
	int fd = -1;

	if (guest < 0 || door_receive(guest, &word, 1, &fd, 1, &n, NULL) != 1 || word != DOOR_LINK)
		close_fdp(&fd);
	return fd;
}

static void serve_once(struct serving *s, uint64_t *lost_ns)
{
	struct pollfd p[2 + FILES_LISTEN_MAX] = { { s->door, POLLIN, 0 }, { s->link.fd, POLLIN | (files_link_wants_out(&s->link) ? POLLOUT : 0), 0 } };
	size_t n = files_listen_poll(p + 2);
	struct err e = ERR_INIT;
	int ret = 0;

	poll(p, 2 + n, files_listen_timeout(files_fs_waits(s->fs) ? LOCK_TICK_MS : IDLE_MS));
	files_listen_step(p + 2, n);
	if (p[0].revents) {
		int fd = take_connection(s->door);

		if (fd >= 0)
			files_link_attach(&s->link, fd);
	} else if (p[1].revents & (POLLIN | POLLHUP | POLLERR)) {
		ret = files_link_input(&s->link, take_request, s, &e);
	}
	if (files_fs_waits(s->fs))
		files_fs_tick(s->fs);
	if (ret >= 0)
		ret = files_link_output(&s->link, &e);
	if (ret < 0) {
		log_debug("event=file-relay-broken text=\"%s\"", e.message);
		files_link_detach(&s->link);
	}
	if (s->link.fd >= 0)
		*lost_ns = clock_ns(CLOCK_MONOTONIC);
}

static void __attribute__((noreturn)) serve(int fd, const uint8_t name[FILES_TOKEN_BYTES], char *const *directories, size_t n)
{
	static struct serving s;
	uint64_t lost_ns = clock_ns(CLOCK_MONOTONIC);
	char door[DOOR_NAME_MAX];
	struct err e = ERR_INIT;

	s = (struct serving){ .link = FILES_LINK_INIT, .door = -1 };
	door_name_of_migration(name, door);
	s.door = door_open(door, &e);
	if (s.door < 0 || files_fs_new(directories, n, answer, &s, &s.fs, &e) < 0) {
		log_error("event=file-relay-failed text=\"%s\"", e.message);
		frame_send_error(fd, e.code, e.message, NULL);
		_exit(1);
	}
	files_link_attach(&s.link, fd);
	while (!s.over && clock_ns(CLOCK_MONOTONIC) - lost_ns < LOST_NS)
		serve_once(&s, &lost_ns);
	door_remove(door);
	files_listen_end();
	/* That the other side's last word has come is said, for a second. */
	for (int i = 0; i < 100 && s.link.fd >= 0 && files_link_wants_out(&s.link) && files_link_output(&s.link, NULL) == 0; i++)
		usleep(10000);
	_exit(0);
}

/* --- the export --- */

static bool is_wanted(const void *arg, int fd)
{
	const int *wanted = arg;

	return fd == wanted[0] || fd == wanted[1];
}

static void begin_session(int door, const int wanted[2], char *const *directories, size_t n)
{
	cleanup_close int fd = take_connection(door);
	cleanup_frame struct frame f = { 0 };

	/* The other side names its session at once; it is godwitd's peer already. */
	if (fd < 0 || frame_recv_expect(fd, FRAME_FILES_OPEN, &f, FILES_TOKEN_BYTES, OPEN_MS, NULL) < 0 || f.len != FILES_TOKEN_BYTES)
		return;
	if (fork() == 0) {
		close(wanted[0]);
		close(wanted[1]);
		serve(take_fd(&fd), f.payload, directories, n);
	}
}

static void session_ended(int signal)
{
	(void)signal;
}

static void __attribute__((noreturn)) run_export(const char *door_name, const int wanted[2], char *const *directories, size_t n)
{
	int door = wanted[0], control = wanted[1];
	bool released = false, left;

	keep_begin("godwit-files", is_wanted, wanted);
	sigaction(SIGCHLD, &(struct sigaction){ .sa_handler = session_ended }, NULL); /* ends poll(2) */
	do {
		struct pollfd p[2] = { { door, POLLIN, 0 }, { released ? -1 : control, POLLIN, 0 } };

		poll(p, 2, IDLE_MS);
		if (p[0].revents)
			begin_session(door, wanted, directories, n);
		released |= p[1].revents != 0;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		left = waitpid(-1, NULL, WNOHANG) == 0; /* -1: ECHILD */
	} while (!released || left);
	door_remove(door_name);
	_exit(0);
}

int files_export_start(const char *unit, char *const *directories, size_t n, struct files_export *ret, struct err *e)
{
	cleanup_close int door = -1;
	char name[DOOR_NAME_MAX];
	struct files_export x = FILES_EXPORT_INIT;
	int pair[2], code;

	if (getrandom(x.token, sizeof(x.token), 0) != (ssize_t)sizeof(x.token))
		return err_sys(e, -errno, "random numbers");
	door_name_of_migration(x.token, name);
	door = door_open(name, e);
	if (door < 0)
		return door;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, -errno, "socketpair");
	code = keep_fork();
	if (code == 0) {
		log_set_context("side=files unit=%s", unit);
		files_listen_for(unit);
		run_export(name, (int[]){ door, pair[1] }, directories, n);
	}
	close(pair[1]);
	x.control = pair[0];
	if (code < 0) {
		files_export_release(&x);
		return err_sys(e, code, "fork");
	}
	*ret = x;
	return 0;
}

void files_export_release(struct files_export *x)
{
	close_fdp(&x->control);
}

int files_export_is_here(const uint8_t token[FILES_TOKEN_BYTES])
{
	cleanup_close int fd = -1;
	char name[DOOR_NAME_MAX];

	door_name_of_migration(token, name);
	fd = door_connect(name, NULL);
	return fd >= 0;
}
