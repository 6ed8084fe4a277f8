/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* point.c - the points at which the program may move, and how it arrives; talk.h has the conversation with godwitd */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "portable/program.h"
#include "portable/talk.h"
#include "portable/wish.h"

#define CALLBACKS_MAX 64
#define DOUBT_PAUSE_US 200000

static const uint32_t nobody;
EXPORT const volatile uint32_t *godwit_asked_ = &nobody;

static struct {
	int memory, near, far;
	char *page;
	int arrival, record; /* at the destination, until the program may go on */
	struct {
		int (*before)(void *arg);
		void (*after)(enum godwit_moved what, void *arg);
		void *arg;
	} callbacks[CALLBACKS_MAX];
	size_t n;
} point = { .memory = -1, .near = -1, .far = -1, .arrival = -1, .record = -1 };

EXPORT int godwit_on_move(int (*before)(void *arg), void (*after)(enum godwit_moved what, void *arg), void *arg)
{
	if (point.n == CALLBACKS_MAX)
		return err_set(&godwit_program.error, -E2BIG, "more than %d call-backs", CALLBACKS_MAX);
	point.callbacks[point.n].before = before;
	point.callbacks[point.n].after = after;
	point.callbacks[point.n++].arg = arg;
	return 0;
}

EXPORT int godwit_point_fd(void)
{
	return point.near;
}

/* A pair, whose near end keeps its number for good. */
static int open_pair(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	if (point.near < 0) {
		point.near = pair[0];
	} else {
		dup3(pair[0], point.near, O_CLOEXEC);
		close(pair[0]);
	}
	if (point.far >= 0)
		close(point.far);
	point.far = pair[1];
	return 0;
}

static void write_page(void)
{
	char path[STATE_TEXT_MAX] = "";
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	struct utsname name;

	path[n > 0 ? n : 0] = 0;
	uname(&name);
	snprintf(point.page + PAGE_TEXT, PAGE_WHY - PAGE_TEXT, "godwit-portable 1\nprogram %s\nversion %u\ntalk %d\nmachine %s\npath %s\n", godwit_program.about.program,
		 godwit_program.about.version, point.far, name.machine, path);
}

static void say_why(const char *why)
{
	snprintf(point.page + PAGE_WHY, PAGE_WHY_BYTES, "%s", why);
}

/* A child has nothing to do with the moves of its parent. */
static void in_child(void)
{
	godwit_asked_ = &nobody;
	close(point.near);
	close(point.far);
	close(point.memory);
	point.near = point.far = point.memory = -1;
}

static int take_number(const char *variable)
{
	const char *value = getenv(variable);
	int fd = value ? atoi(value) : -1;

	if (fd >= 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		fd = -1;
	unsetenv(variable);
	return fd;
}

void point_begin(const char *program, unsigned version)
{
	(void)program;
	(void)version;
	point.arrival = take_number(TALK_FD_VARIABLE);
	point.record = take_number(TALK_RECORD_VARIABLE);
	point.memory = memfd_create(PAGE_NAME, MFD_CLOEXEC);
	if (point.memory < 0 || ftruncate(point.memory, PAGE_BYTES) < 0 || open_pair() < 0)
		return;
	point.page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, point.memory, 0);
	if (point.page == MAP_FAILED)
		return;
	write_page();
	pthread_atfork(NULL, NULL, in_child);
	godwit_asked_ = (const volatile uint32_t *)(void *)point.page;
}

/* --- bytes --- */

static int send_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int receive_all(int fd, void *data, size_t len)
{
	char *p = data;

	while (len) {
		ssize_t n = recv(fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int receive_text(int fd, char text[TALK_TEXT_MAX + 1])
{
	uint8_t head[2];
	size_t len;
	int r = receive_all(fd, head, sizeof(head));

	len = (size_t)head[0] | (size_t)head[1] << 8;
	if (r < 0 || len > TALK_TEXT_MAX)
		return r < 0 ? r : -EPROTO;
	r = receive_all(fd, text, len);
	text[r < 0 ? 0 : len] = 0;
	return r;
}

/* --- the point --- */

static int send_start(void)
{
	size_t len = 0;
	char *start = start_describe(godwit_program.argc, godwit_program.argv, &len);
	uint8_t head[4] = { (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16), (uint8_t)(len >> 24) };
	int r;

	if (!start)
		return err_set(&godwit_program.error, -E2BIG, "arguments and environment are more than %u bytes", TALK_START_MAX);
	r = send_all(point.near, head, sizeof(head));
	if (r == 0)
		r = send_all(point.near, start, len);
	free(start);
	return r < 0 ? err_sys(&godwit_program.error, r, "godwitd") : 0;
}

/* What godwitd says in the end: TALK_LEAVE or TALK_STAY, with the reason in the error. */
static enum talk hear_verdict(void)
{
	char text[TALK_TEXT_MAX + 1] = "", migration[TALK_TEXT_MAX + 1] = "";
	uint8_t word;

	while (receive_all(point.near, &word, 1) == 0) {
		if (word == TALK_LEAVE)
			return TALK_LEAVE;
		if (word == TALK_DECIDE && receive_text(point.near, migration) == 0)
			continue;
		if (word == TALK_STAY && receive_text(point.near, text) == 0) {
			err_set(&godwit_program.error, -ECANCELED, "%s", text);
			return TALK_STAY;
		}
		if (word != TALK_ASK)
			break;
	}
	while (migration[0]) {
		int gone = wish_outcome(migration);

		if (gone > 0)
			return TALK_LEAVE;
		if (gone == 0)
			break;
		usleep(DOUBT_PAUSE_US);
	}
	err_set(&godwit_program.error, -ECONNRESET, "godwitd has given up without a word");
	return TALK_STAY;
}

static int call_before(void)
{
	for (size_t i = 0; i < point.n; i++) {
		int r = point.callbacks[i].before ? point.callbacks[i].before(point.callbacks[i].arg) : 0;

		if (r)
			return err_set(&godwit_program.error, -EAGAIN, "the program says that it cannot move now (%d)", r);
	}
	return 0;
}

static void call_after(enum godwit_moved what)
{
	for (size_t i = 0; i < point.n; i++)
		if (point.callbacks[i].after)
			point.callbacks[i].after(what, point.callbacks[i].arg);
}

/* Gives the state away and waits for what becomes of it. */
static enum talk offer(void)
{
	struct state_about about = godwit_program.about;
	int r = call_before();

	if (r == 0)
		r = fflush(NULL) == 0 ? 0 : err_sys(&godwit_program.error, -errno, "what is in the buffers of stdio");
	if (r == 0)
		r = send_start();
	if (r == 0)
		r = state_write(&godwit_program.vars, &about, point.near, NULL, &godwit_program.error);
	if (r < 0)
		say_why(godwit_program.error.message);
	return r < 0 ? TALK_STAY : hear_verdict();
}

EXPORT int godwit_point_slowly_(unsigned number)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN }, was;
	enum talk verdict;

	if (point.near < 0 || !godwit_program.begun)
		return 0;
	close(point.far); /* so that the end of the other one is seen */
	point.far = -1;
	godwit_program.about.point = number;
	sigaction(SIGPIPE, &ignore, &was);
	verdict = offer();
	sigaction(SIGPIPE, &was, NULL);
	if (verdict == TALK_LEAVE) {
		call_after(GODWIT_LEFT);
		_exit(0);
	}
	*(volatile uint32_t *)(void *)point.page = 0;
	if (open_pair() == 0)
		write_page();
	wish_forget();
	call_after(GODWIT_STAYED);
	return godwit_program.error.code;
}

/* --- arriving --- */

/* The record says whether the other side has been told that the program is here. */
static bool was_committed(void)
{
	char byte = 0;

	return point.record >= 0 && pread(point.record, &byte, 1, 0) == 1 && byte == 'C';
}

static void refuse_arrival(void)
{
	const char *why = godwit_program.error.message;
	size_t len = strlen(why);
	uint8_t head[3] = { TALK_REFUSE, (uint8_t)len, (uint8_t)(len >> 8) };

	if (send_all(point.arrival, head, sizeof(head)) == 0)
		send_all(point.arrival, why, len);
}

int point_arrived(int result)
{
	uint8_t word = TALK_READY;
	int fd = point.arrival;

	if (fd < 0)
		return result;
	if (result < 0)
		refuse_arrival();
	else if (send_all(fd, &word, 1) < 0 || receive_all(fd, &word, 1) < 0 || word != TALK_GO)
		result = was_committed() ? result : err_set(&godwit_program.error, -ECANCELED, "the program goes on where it was");
	close(fd);
	if (point.record >= 0)
		close(point.record);
	point.arrival = point.record = -1;
	return result;
}
