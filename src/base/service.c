/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* service.c - what a daemon and its service manager tell each other; see service.h */
#include "base/service.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define FIRST_PASSED 3 /* SD_LISTEN_FDS_START */

/* A number of the environment, and nothing else; -1: there is none. */
static long long number_from(const char *name)
{
	const char *text = getenv(name);
	char *end;
	long long n;

	if (!text || *text < '0' || *text > '9')
		return -1;
	errno = 0;
	n = strtoll(text, &end, 10);
	return errno || *end ? -1 : n;
}

static bool is_for_me(const char *name)
{
	return !getenv(name) || number_from(name) == getpid();
}

/* Connected, so that what changes at the path later does not matter. '@' stands for the abstract name space. */
static int connect_notify(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t len = strlen(path);
	int fd;

	if (len < 2 || len >= sizeof(to.sun_path) || (*path != '/' && *path != '@'))
		return -EINVAL;
	memcpy(to.sun_path, path, len + 1);
	if (*path == '@')
		to.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (*path == '/'))) == 0)
		return fd;
	close(fd);
	return -errno;
}

static int half_of_watchdog(void)
{
	long long us = number_from("WATCHDOG_USEC");

	if (us <= 0 || !is_for_me("WATCHDOG_PID"))
		return -1;
	return us / 2000 < 1 ? 1 : us / 2000 > INT_MAX ? INT_MAX : (int)(us / 2000);
}

static int passed_listener(void)
{
	long long n = number_from("LISTEN_FDS");

	if (n <= 0 || !getenv("LISTEN_PID") || !is_for_me("LISTEN_PID"))
		return -1;
	for (int fd = FIRST_PASSED; fd < FIRST_PASSED + n; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return -1;
	if (n > 1)
		log_warning("event=sockets-ignored text=\"%lld sockets were passed, and the first one is used\"", n);
	return FIRST_PASSED;
}

void service_begin(struct service *s)
{
	static const char *const names[] = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES" };
	const char *path = getenv("NOTIFY_SOCKET");
	int fd = path ? connect_notify(path) : -ENOENT;

	if (path && fd < 0)
		log_warning("event=no-service-manager socket=\"%s\" error=\"%s\"", path, strerror(-fd));
	s->notify_fd = fd < 0 ? -1 : fd;
	s->watchdog_ms = s->notify_fd < 0 ? -1 : half_of_watchdog();
	s->listen_fd = passed_listener();
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
}

static bool listens_at(int fd, const char *path)
{
	struct sockaddr_un at = { 0 };
	socklen_t len = sizeof(at), int_len = sizeof(int);
	int listens = 0, type = 0;

	return getsockname(fd, (struct sockaddr *)&at, &len) == 0 && at.sun_family == AF_UNIX && len > offsetof(struct sockaddr_un, sun_path) &&
		!strncmp(at.sun_path, path, sizeof(at.sun_path)) && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &int_len) == 0 && listens &&
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &int_len) == 0 && type == SOCK_STREAM;
}

int service_take_listener(struct service *s, const char *path)
{
	int fd = s->listen_fd;

	if (fd < 0)
		return -1;
	s->listen_fd = -1;
	if (!listens_at(fd, path) || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		log_warning("event=socket-ignored text=\"the socket that was passed does not listen at %s\"", path);
		close(fd);
		return -1;
	}
	return fd;
}

void service_tell(const struct service *s, const char *state)
{
	if (s->notify_fd >= 0 && send(s->notify_fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("event=not-notified error=\"%s\"", strerror(errno));
}

int service_tick(struct service *s)
{
	unsigned long long now;

	if (s->watchdog_ms < 0)
		return -1;
	now = clock_ns(CLOCK_MONOTONIC);
	if (now >= s->next_ns) {
		service_tell(s, "WATCHDOG=1");
		s->next_ns = now + (unsigned long long)s->watchdog_ms * 1000000;
	}
	return (int)((s->next_ns - now + 999999) / 1000000);
}
