// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * portable.c - what bench/portable.py measures of libgodwit-portable
 *
 *	portable loop points|bare MILLION      nanoseconds a turn of a loop that computes a little, with a point in it or without
 *	portable state KIND MIB                writes and reads a state in memory: GiB/s of each, and its bytes
 *	portable hold KIND MIB                 has such a state, and waits for somebody who moves it; writes a line when it has been moved
 *
 * KIND: doubles (one array), structs (an array of structures with holes), list (objects that point to each other).
 */
#include <err.h>
#include <fcntl.h>
#include <godwit-portable.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct sample {
	int32_t number;
	double value;
	char tag;
};
struct node {
	int64_t key;
	double value;
	struct node *next, *other;
};
GODWIT_TYPE(sample, struct sample, GODWIT_FIELD(struct sample, number), GODWIT_FIELD(struct sample, value), GODWIT_FIELD(struct sample, tag));
GODWIT_TYPE(node, struct node, GODWIT_FIELD(struct node, key), GODWIT_FIELD(struct node, value), GODWIT_FIELD_POINTER(struct node, next, node),
	    GODWIT_FIELD_POINTER(struct node, other, node));

static double *doubles;
static struct sample *samples;
static struct node *list;
static long n_doubles, n_samples;
static int moves;

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* what others do on the machine matters less so */
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* What a step of a small computation may be: some 20 ns. */
static inline double work(double x)
{
	for (int i = 0; i < 4; i++)
		x = x * 0.999999 + 1.0 / (x + 2.0);
	return x;
}

static int loop(bool points, long million)
{
	double x = 1, begun = now_s();

	if (points)
		for (long i = 0; i < million * 1000000; i++) {
			x = work(x);
			godwit_point();
		}
	else
		for (long i = 0; i < million * 1000000; i++)
			x = work(x);
	printf("%.4f %g\n", (now_s() - begun) * 1000 / (double)million, x);
	return 0;
}

static void *many(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		err(1, "memory");
	return p;
}

static void make(const char *kind, long mib)
{
	long bytes = mib << 20;

	if (!strcmp(kind, "doubles")) {
		n_doubles = bytes / 8;
		doubles = many((size_t)n_doubles, 8);
		for (long i = 0; i < n_doubles; i++)
			doubles[i] = (double)i / 3;
	} else if (!strcmp(kind, "structs")) {
		n_samples = bytes / (long)sizeof(*samples);
		samples = many((size_t)n_samples, sizeof(*samples));
		for (long i = 0; i < n_samples; i++)
			samples[i] = (struct sample){ (int32_t)i, (double)i / 7, (char)i };
	} else if (!strcmp(kind, "list")) {
		struct node *last = NULL;

		for (long i = 0; i < bytes / (long)sizeof(*list); i++) {
			struct node *n = many(1, sizeof(*n));

			*n = (struct node){ i, (double)i / 5, list, last };
			last = i % 2 ? list : n;
			list = n;
		}
	} else {
		errx(2, "doubles, structs or list?");
	}
}

static int state(long mib)
{
	int fd = memfd_create("state", MFD_CLOEXEC);
	double begun = now_s(), written, done;
	off_t bytes;

	if (fd < 0 || godwit_save_fd(fd) < 0)
		errx(1, "%s", godwit_why());
	written = now_s();
	bytes = lseek(fd, 0, SEEK_END);
	lseek(fd, 0, SEEK_SET);
	if (godwit_load_fd(fd) < 0)
		errx(1, "%s", godwit_why());
	done = now_s();
	printf("%.3f %.3f %lld\n", (double)mib / 1024 / (written - begun), (double)mib / 1024 / (done - written), (long long)bytes);
	return 0;
}

static int hold(void)
{
	if (moves)
		printf("moved %d\n", moves);
	fflush(stdout);
	for (;;) {
		struct pollfd p = { .fd = godwit_point_fd(), .events = POLLIN };

		poll(&p, 1, -1);
		moves++;
		if (godwit_point() < 0)
			errx(1, "%s", godwit_why());
		moves--;
	}
}

int main(int argc, char **argv)
{
	int r = godwit_portable_begin(&argc, &argv, "bench", 1);

	GODWIT_VAR(moves);
	GODWIT_VAR(n_doubles);
	GODWIT_VAR_COUNTED(doubles, n_doubles);
	GODWIT_VAR(n_samples);
	GODWIT_VAR_COUNTED_STRUCTS(samples, n_samples, sample);
	GODWIT_VAR_POINTER(list, node);
	if (argc != 4 || r < 0)
		errx(2, "usage: portable loop points|bare MILLION, or state|hold doubles|structs|list MIB; %s", godwit_why());
	r = godwit_portable_ready();
	if (r < 0)
		errx(1, "%s", godwit_why());
	if (!strcmp(argv[1], "loop"))
		return loop(!strcmp(argv[2], "points"), atol(argv[3]));
	if (r == 0)
		make(argv[2], atol(argv[3]));
	return !strcmp(argv[1], "state") ? state(atol(argv[3])) : hold();
}
