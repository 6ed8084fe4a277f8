// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * uffd_last_close.c - when the last descriptor of a userfaultfd is closed (its holders died), missing pages silently read as
 * zeros: as long as pages are elsewhere, something that does not die with the filler must hold the descriptor
 */
#include "fact.h"

struct shared {
	volatile int uffd, touched[2];
	volatile char value[2];
};

static struct shared *s;

/* The process: makes the userfaultfd, closes its own copy as a moved program must, and reads a page. */
static void process(char *p)
{
	int fd = uffd_open(0);

	MUST(uffd_register(fd, p, 16 * PAGE, UFFDIO_REGISTER_MODE_MISSING) == 0);
	s->uffd = fd;
	while (s->uffd)
		usleep(100);
	close(fd);
	s->touched[0] = 1;
	s->value[0] = p[0];
	s->touched[0] = 2;
	s->touched[1] = 1;
	s->value[1] = p[PAGE];
	s->touched[1] = 2;
	for (;;)
		pause();
}

static pid_t holder(pid_t pid, int number)
{
	pid_t h = fork();

	if (h)
		return h;
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	MUST(syscall(SYS_pidfd_getfd, pidfd, number, 0) >= 0);
	close(pidfd);
	s->touched[1] = -1; /* taken */
	for (;;)
		pause();
}

static pid_t take(pid_t pid, int number)
{
	s->touched[1] = 0;
	pid_t h = holder(pid, number);
	while (s->touched[1] != -1)
		usleep(100);
	s->touched[1] = 0;
	return h;
}

int main(void)
{
	char *p = map_anon(16 * PAGE);

	s = map_shared(PAGE);
	s->value[0] = s->value[1] = 'x';
	pid_t pid = fork();
	if (pid == 0)
		process(p);
	while (!s->uffd)
		usleep(100);
	pid_t agent = take(pid, s->uffd), keeper = take(pid, s->uffd);
	s->uffd = 0;
	WAIT_FOR(s->touched[0]);
	usleep(20000);
	FACT(s->touched[0] == 1, "a read of a missing page waits");
	kill(agent, SIGKILL);
	waitpid(agent, NULL, 0);
	usleep(20000);
	FACT(s->touched[0] == 1, "the filler was killed, another process holds the descriptor: it still waits");
	kill(keeper, SIGKILL);
	waitpid(keeper, NULL, 0);
	WAIT_FOR(s->touched[1] == 2);
	FACT(s->touched[0] == 2 && s->value[0] == 0, "the last holder was killed: the read returns %d, a zero page that was never there", s->value[0]);
	FACT(s->touched[1] == 2 && s->value[1] == 0, "and so do all later ones: the range is no longer registered");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return fact_result();
}
