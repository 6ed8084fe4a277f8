// SPDX-License-Identifier: GPL-2.0-or-later
/* splice_socket.c - memory goes into a TCP socket by reference through a pipe: what is read is what is there when it is read; a full socket does not block */
#include <netinet/in.h>
#include <sys/socket.h>

#include "fact.h"

#define RUN (64 * PAGE)

static void connect_pair(int fds[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	MUST(bind(l, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(l, 1) == 0 && getsockname(l, (struct sockaddr *)&at, &len) == 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	MUST(connect(fds[0], (struct sockaddr *)&at, sizeof(at)) == 0);
	fds[1] = accept(l, NULL, NULL);
	MUST(fds[1] >= 0);
	close(l);
}

static void receive(int fd, char *to, size_t len)
{
	for (ssize_t n; len; to += n, len -= (size_t)n) {
		n = recv(fd, to, len, 0);
		MUST(n > 0);
	}
}

/* Bytes that went into the socket, or -errno. */
static ssize_t splice_out(int pipe[2], int socket, char *from, size_t len)
{
	struct iovec iov = { from, len };
	ssize_t n = vmsplice(pipe[1], &iov, 1, SPLICE_F_NONBLOCK);

	n = n > 0 ? splice(pipe[0], NULL, socket, NULL, (size_t)n, SPLICE_F_NONBLOCK) : n;
	return n < 0 ? -errno : n;
}

static void by_reference(int pipe[2], int fds[2])
{
	char *page = map_anon(PAGE), got[PAGE];

	memset(page, 'a', PAGE);
	MUST(splice_out(pipe, fds[0], page, PAGE) == (ssize_t)PAGE);
	memset(page, 'b', PAGE);
	receive(fds[1], got, PAGE);
	FACT(got[0] == 'b', "a page that changes before it is read arrives changed: it was not copied");
	memset(page, 'c', PAGE);
	MUST(splice_out(pipe, fds[0], page, PAGE) == (ssize_t)PAGE);
	munmap(page, PAGE);
	receive(fds[1], got, PAGE);
	FACT(got[0] == 'c' && got[PAGE - 1] == 'c', "a page that is unmapped before it is read arrives");
}

static void full_socket(int pipe[2], int fds[2])
{
	char *run = map_anon(RUN);
	ssize_t n = 0;
	int calls = 0;

	MUST(fcntl(fds[0], F_SETFL, fcntl(fds[0], F_GETFL) | O_NONBLOCK) == 0);
	alarm(10);
	while (calls++ < 4096 && (n = splice_out(pipe, fds[0], run, RUN)) == (ssize_t)RUN)
		;
	if (n > 0) /* the socket took a part; what is left in the pipe is not taken */
		n = splice(pipe[0], NULL, fds[0], NULL, RUN - (size_t)n, SPLICE_F_NONBLOCK) < 0 ? -errno : 1;
	FACT(n == -EAGAIN, "splice into a full socket with O_NONBLOCK: %s", n < 0 ? strerror((int)-n) : "taken");
	alarm(0);
}

int main(void)
{
	int pipe[2], fds[2];

	connect_pair(fds);
	MUST(pipe2(pipe, O_CLOEXEC | O_NONBLOCK) == 0 && fcntl(pipe[1], F_SETPIPE_SZ, RUN) >= (int)RUN);
	by_reference(pipe, fds);
	full_socket(pipe, fds);
	return fact_result();
}
