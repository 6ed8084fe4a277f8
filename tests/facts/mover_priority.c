// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mover_priority.c - the largest gaps of a busy program while a sender and a receiver stream on the same two cores: with normal
 * priority, nice, SCHED_BATCH, SCHED_IDLE, and a shorter EEVDF slice (sched_setattr, sched_runtime); argument "all": every combination
 */
#include <netinet/in.h>
#include <sys/socket.h>

#include "fact.h"

struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice_value;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

struct result {
	volatile uint64_t bytes, iterations, gaps[8];
};

static struct result *result;

static int set_attr(int policy, int nice_value, uint64_t slice_ns)
{
	struct attr a = { .size = sizeof(a), .policy = (uint32_t)policy, .nice_value = nice_value, .runtime = slice_ns };

	return syscall(SYS_sched_setattr, 0, &a, 0) < 0 ? -errno : 0;
}

static void stream(bool sender, int fd)
{
	char *b = map_anon(256 << 10);

	memset(b, 1, 256 << 10);
	for (;;) {
		ssize_t n = sender ? send(fd, b, 256 << 10, 0) : recv(fd, b, 256 << 10, 0);
		if (n <= 0)
			_exit(0);
		if (!sender)
			result->bytes += (uint64_t)n;
	}
}

static void connection(int fd[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	MUST(bind(l, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(l, 1) == 0 && getsockname(l, (struct sockaddr *)&a, &len) == 0);
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	MUST(connect(fd[0], (struct sockaddr *)&a, sizeof(a)) == 0);
	fd[1] = accept(l, NULL, NULL);
	close(l);
}

/* Reads the clock for a second and keeps the largest gaps. */
static void victim(uint64_t slice_ns)
{
	struct timespec ts;
	uint64_t until, last, t;

	if (slice_ns)
		set_attr(SCHED_OTHER, 0, slice_ns);
	clock_gettime(CLOCK_REALTIME, &ts);
	last = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
	until = last + 700000000ull;
	do {
		clock_gettime(CLOCK_REALTIME, &ts);
		t = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
		if (t - last > result->gaps[0]) {
			result->gaps[0] = t - last;
			for (int i = 0; i < 7 && result->gaps[i] > result->gaps[i + 1]; i++) {
				uint64_t x = result->gaps[i];
				result->gaps[i] = result->gaps[i + 1];
				result->gaps[i + 1] = x;
			}
		}
		last = t;
		result->iterations++;
	} while (t < until);
	_exit(0);
}

static uint64_t one(const char *name, int policy, int nice_value, uint64_t slice_ns, uint64_t victim_slice_ns)
{
	int fd[2];
	pid_t p[3];

	memset(result, 0, sizeof(*result));
	connection(fd);
	for (int i = 0; i < 2; i++) {
		p[i] = fork();
		if (p[i] == 0) {
			close(fd[!i]);
			int r = set_attr(policy, nice_value, slice_ns);
			if (r)
				printf("sched_setattr: %s\n", strerror(-r));
			stream(i == 0, fd[i]);
		}
	}
	close(fd[0]);
	close(fd[1]);
	usleep(100000);
	result->bytes = 0;
	uint64_t t = now_ns();
	p[2] = fork();
	if (p[2] == 0)
		victim(victim_slice_ns);
	waitpid(p[2], NULL, 0);
	t = now_ns() - t;
	uint64_t bytes = result->bytes;
	for (int i = 0; i < 2; i++) {
		kill(p[i], SIGKILL);
		waitpid(p[i], NULL, 0);
	}
	SAW("%-46s largest gaps %5.2f %5.2f %5.2f ms; stream %4.2f GiB/s; program %5.1f M readings/s", name, (double)result->gaps[7] / 1e6,
	    (double)result->gaps[6] / 1e6, (double)result->gaps[5] / 1e6, (double)bytes / (1 << 30) / ((double)t / 1e9),
	    (double)result->iterations / ((double)t / 1e3));
	return result->gaps[7];
}

int main(int argc, char **argv)
{
	(void)argv;
	result = map_shared(PAGE);
	if (argc == 1) {
		FACT(one("movers nice 19, slice of 100 us", SCHED_OTHER, 19, 100000, 0) > 0, "a task can set its slice by itself");
		return fact_result();
	}
	one("movers normal", SCHED_OTHER, 0, 0, 0);
	one("movers nice 10", SCHED_OTHER, 10, 0, 0);
	one("movers nice 19", SCHED_OTHER, 19, 0, 0);
	one("movers with a slice of 100 us", SCHED_OTHER, 0, 100000, 0);
	one("movers nice 10, slice of 100 us", SCHED_OTHER, 10, 100000, 0);
	one("movers nice 19, slice of 100 us", SCHED_OTHER, 19, 100000, 0);
	one("movers SCHED_BATCH", SCHED_BATCH, 0, 0, 0);
	one("movers SCHED_BATCH, nice 10, slice of 100 us", SCHED_BATCH, 10, 100000, 0);
	uint64_t idle = one("movers SCHED_IDLE", 5, 0, 0, 0);
	one("movers SCHED_IDLE, slice of 100 us", 5, 0, 100000, 0);
	one("movers normal, program with a slice of 100 us", SCHED_OTHER, 0, 0, 100000);
	one("movers nice 10, program with a slice of 100 us", SCHED_OTHER, 10, 0, 100000);
	FACT(idle > 0, "policies and slices can be set for a mover by itself");
	return fact_result();
}
