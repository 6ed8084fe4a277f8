// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * links.c - neighbours: how they find each other, and what they say
 *
 * A part listens, and says where in DIRECTORY/part.N ("ADDRESS PORT"). It connects to the part above it and is connected to by the one below. When a connection begins, each side says the step
 * whose row it needs next; rows of the last two steps are kept for that, so that it does not matter in which step a neighbour went away. A connection that ends is made anew, to wherever
 * the neighbour is by then. All numbers travel as eight bytes, little-endian.
 */
#include "flow.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 60
#define PAUSE_US 10000

static struct {
	const struct strip *s;
	const char *directory;
	int listener, fd[2];  /* below, above */
	long sent[2], got[2]; /* up to which step */
} l = { .listener = -1, .fd = { -1, -1 }, .sent = { -1, -1 }, .got = { -1, -1 } };

static bool exists(int side)
{
	return side ? l.s->index + 1 < l.s->parts : l.s->index > 0;
}

/* --- bytes --- */

static void to_wire(uint8_t *to, const void *from)
{
	uint64_t x;

	memcpy(&x, from, 8);
	for (int i = 0; i < 8; i++)
		to[i] = (uint8_t)(x >> 8 * i);
}

static void from_wire(void *to, const uint8_t *from)
{
	uint64_t x = 0;

	for (int i = 0; i < 8; i++)
		x |= (uint64_t)from[i] << 8 * i;
	memcpy(to, &x, 8);
}

static bool send_all(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static bool receive_all(int fd, uint8_t *data, size_t len)
{
	while (len) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n = poll(&p, 1, PATIENCE_S * 1000) > 0 ? recv(fd, data, len, 0) : -1;

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static bool send_number(int fd, int64_t x)
{
	uint8_t wire[8];

	to_wire(wire, &x);
	return send_all(fd, wire, sizeof(wire));
}

static bool receive_number(int fd, int64_t *ret)
{
	uint8_t wire[8];

	if (!receive_all(fd, wire, sizeof(wire)))
		return false;
	from_wire(ret, wire);
	return true;
}

/* --- where everybody is --- */

static struct in_addr own_address(void)
{
	struct in_addr found = { .s_addr = htonl(INADDR_LOOPBACK) };
	struct ifaddrs *all = NULL;

	if (getifaddrs(&all) < 0)
		return found;
	for (struct ifaddrs *i = all; i; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && !(i->ifa_flags & IFF_LOOPBACK)) {
			found = ((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr;
			break;
		}
	freeifaddrs(all);
	return found;
}

static void publish(const struct sockaddr_in *at)
{
	char path[4096], fresh[4200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/part.%d", l.directory, l.s->index);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	f = fopen(fresh, "w");
	if (!f || fprintf(f, "%s %u\n", inet_ntoa(at->sin_addr), ntohs(at->sin_port)) < 0 || fclose(f) != 0 || rename(fresh, path) < 0)
		err(1, "%s", path);
}

void links_open(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	socklen_t len = sizeof(any);

	l.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l.listener < 0 || bind(l.listener, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(l.listener, 4) < 0 || getsockname(l.listener, (struct sockaddr *)&any, &len) < 0)
		err(1, "listening");
	any.sin_addr = own_address();
	publish(&any);
}

void links_close(void)
{
	for (int side = 0; side < 2; side++) {
		if (l.fd[side] >= 0)
			close(l.fd[side]);
		l.fd[side] = -1;
	}
	if (l.listener >= 0)
		close(l.listener);
	l.listener = -1;
}

void links_begin(const struct strip *s, const char *directory)
{
	l.s = s;
	l.directory = directory;
	links_open();
}

/* --- connections --- */

static int connect_above(void)
{
	char path[4096], address[64];
	struct sockaddr_in to = { .sin_family = AF_INET };
	unsigned port;
	FILE *f;
	int fd, n;

	snprintf(path, sizeof(path), "%s/part.%d", l.directory, l.s->index + 1);
	f = fopen(path, "r");
	n = f ? fscanf(f, "%63s %u", address, &port) : 0;
	if (f)
		fclose(f);
	if (n != 2 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		return -1;
	to.sin_port = htons((uint16_t)port);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static int accept_below(void)
{
	struct pollfd p = { .fd = l.listener, .events = POLLIN };

	return poll(&p, 1, 1000) > 0 ? accept4(l.listener, NULL, NULL, SOCK_CLOEXEC) : -1;
}

static bool send_row(int fd, long step, const double *row)
{
	size_t n = (size_t)(CROSSING * l.s->width);
	uint8_t *wire = malloc(8 * n + 8);
	int64_t number = step;
	bool good;

	if (!wire)
		err(1, "memory for a row");
	to_wire(wire, &number);
	for (size_t i = 0; i < n; i++)
		to_wire(wire + 8 + 8 * i, &row[i]);
	good = send_all(fd, wire, 8 * n + 8);
	free(wire);
	return good;
}

static const double *kept_row(const double *kept, long step, int side)
{
	return kept + ((step & 1) * 2 + side) * (long)CROSSING * l.s->width;
}

/* Who is there, and what does each need. */
static bool greet(int fd, int side, long step, const double *kept)
{
	int one = 1;
	int64_t who, need;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!send_number(fd, l.s->index) || !send_number(fd, l.got[side] + 1) || !receive_number(fd, &who) || !receive_number(fd, &need))
		return false;
	if (who != l.s->index + (side ? 1 : -1) || need < step - 1 || need > step + 1)
		errx(1, "part %d: its neighbour says that it is part %ld and needs step %ld, in step %ld", l.s->index, (long)who, (long)need, step);
	for (long i = need; i <= step; i++)
		if (!send_row(fd, i, kept_row(kept, i, side)))
			return false;
	l.sent[side] = step;
	return true;
}

static void establish(int side, long step, const double *kept)
{
	time_t begun = time(NULL);

	for (;;) {
		int fd;

		if (l.fd[side] >= 0)
			close(l.fd[side]);
		l.fd[side] = -1;
		fd = side ? connect_above() : accept_below();
		if (fd >= 0 && greet(fd, side, step, kept)) {
			l.fd[side] = fd;
			return;
		}
		if (fd >= 0)
			close(fd);
		if (time(NULL) - begun > PATIENCE_S)
			errx(1, "part %d: no neighbour %s within %d s", l.s->index, side ? "above" : "below", PATIENCE_S);
		usleep(PAUSE_US);
	}
}

static bool receive_row(struct strip *s, int side, long step)
{
	size_t n = (size_t)(CROSSING * s->width);
	uint8_t *wire = malloc(8 * n);
	double *row = malloc(8 * n);
	int64_t number;
	bool good;

	if (!wire || !row)
		err(1, "memory for a row");
	good = receive_number(l.fd[side], &number) && receive_all(l.fd[side], wire, 8 * n);
	if (good && number != step)
		errx(1, "part %d: expected the row of step %ld, got that of %ld", s->index, step, (long)number);
	for (size_t i = 0; good && i < n; i++)
		from_wire(&row[i], wire + 8 * i);
	if (good) {
		lattice_take(s, side, row);
		l.got[side] = step;
	}
	free(wire);
	free(row);
	return good;
}

void links_exchange(struct strip *s, long step, double *kept)
{
	for (int side = 0; side < 2; side++) {
		lattice_border(s, side, (double *)(uintptr_t)kept_row(kept, step, side));
		if (l.got[side] < step - 1)
			l.got[side] = step - 1; /* it goes on from a state */
	}
	for (int side = 1; side >= 0; side--)
		if (exists(side) && (l.fd[side] < 0 || (l.sent[side] < step && !send_row(l.fd[side], step, kept_row(kept, step, side)))))
			establish(side, step, kept);
	for (int side = 0; side < 2; side++) {
		l.sent[side] = step;
		while (exists(side) && l.got[side] < step)
			if (!receive_row(s, side, step))
				establish(side, step, kept);
	}
}
