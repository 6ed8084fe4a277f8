// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * gap.c - the victim that measures its own freeze
 *
 * gap STATUS_FILE JSON_FILE [--mib N] [--pages W] [--random|--sequential] [--no-verify]
 *
 * One thread writes its working set (W pages, round-robin or at random) in N MiB of incompressible memory and reads CLOCK_REALTIME after each page.
 * Gaps above 50 us go, with their times, into a ring; all gaps go into a histogram; finished iterations are counted for each 10 ms.
 * At SIGTERM every word of memory is verified, the JSON file is written and the status file gets "ok" or "FAIL: ...".
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define WORDS (PAGE / 8)
#define TOP 64            /* largest gaps that are kept */
#define BUCKETS 32        /* bucket i: gaps of [2^i, 2^(i+1)) ns */
#define SLOTS 30000       /* of 10 ms: 300 s, then the last one counts on */
#define SLOT_NS 10000000ull

struct gap {
	uint64_t at_ns, len_ns;
};

/* Everything that the loop writes besides the working set: few pages, touched beforehand. */
static struct {
	uint64_t start_ns, rounds, iterations;
	struct gap top[TOP];
	uint64_t top_min;
	uint64_t histogram[BUCKETS];
} s __attribute__((aligned(4096)));
static uint32_t slots[SLOTS] __attribute__((aligned(4096)));

static uint64_t *memory, n_pages, working_set = 64;
static uint32_t *versions;
static bool at_random, verify = true;
static volatile sig_atomic_t stop;
static const char *status_path, *json_path;

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static void on_term(int sig)
{
	stop = 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void say(const char *format, ...)
{
	int fd = open(status_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	va_list ap;

	va_start(ap, format);
	if (fd < 0 || vdprintf(fd, format, ap) < 0)
		_exit(3);
	va_end(ap);
	close(fd);
}

static void keep_gap(uint64_t at_ns, uint64_t len_ns)
{
	int least = 0;

	for (int i = 1; i < TOP; i++) {
		if (s.top[i].len_ns < s.top[least].len_ns)
			least = i;
	}
	s.top[least] = (struct gap){ at_ns, len_ns };
	s.top_min = s.top[0].len_ns;
	for (int i = 1; i < TOP; i++) {
		if (s.top[i].len_ns < s.top_min)
			s.top_min = s.top[i].len_ns;
	}
}

/* One iteration: one page of the working set is checked, and one word of it is written. Its word is derived from its version. */
static void work(void)
{
	uint64_t last = s.start_ns, random = 88172645463325252ull;

	while (!stop) {
		uint64_t page, now, len, *w;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		page = (at_random ? random : s.rounds++) % working_set;
		w = memory + page * WORDS;
		if (w[0] != mix(page << 32 | versions[page])) {
			say("FAIL: page %llu, version %u, expected %#llx, got %#llx\n", (unsigned long long)page, versions[page],
			    (unsigned long long)mix(page << 32 | versions[page]), (unsigned long long)w[0]);
			_exit(1);
		}
		w[0] = mix(page << 32 | ++versions[page]);
		s.iterations++;
		now = now_ns();
		len = now > last ? now - last : 0;
		s.histogram[len ? 63 - __builtin_clzll(len) < BUCKETS ? 63 - __builtin_clzll(len) : BUCKETS - 1 : 0]++;
		if (len > 20000 && len > s.top_min)
			keep_gap(now, len);
		page = (now - s.start_ns) / SLOT_NS;
		slots[page < SLOTS ? page : SLOTS - 1]++;
		last = now;
	}
}

static bool verify_all(void)
{
	for (uint64_t p = 0; p < n_pages; p++) {
		const uint64_t *w = memory + p * WORDS;

		for (uint64_t i = 0; i < WORDS; i++) {
			uint64_t want = i ? mix(p * WORDS + i) : mix(p << 32 | versions[p]);

			if (w[i] == want)
				continue;
			say("FAIL: page %llu (%p), word %llu, expected %#llx, got %#llx\n", (unsigned long long)p, (void *)&w[i],
			    (unsigned long long)i, (unsigned long long)want, (unsigned long long)w[i]);
			return false;
		}
	}
	return true;
}

static int by_length(const void *a, const void *b)
{
	const struct gap *x = a, *y = b;

	return x->len_ns < y->len_ns ? 1 : x->len_ns > y->len_ns ? -1 : 0;
}

static void write_json(bool ok, uint64_t end_ns)
{
	uint64_t n_slots = (end_ns - s.start_ns) / SLOT_NS + 1;
	struct utsname u;
	FILE *f = fopen(json_path, "we");

	if (!f) {
		say("FAIL: %s: %s\n", json_path, strerror(errno));
		_exit(1);
	}
	uname(&u);
	qsort(s.top, TOP, sizeof(*s.top), by_length);
	fprintf(f, "{\"mib\": %llu, \"working_set_pages\": %llu, \"random\": %s, \"ok\": %s, \"host\": \"%s\", \"start_ns\": %llu, \"end_ns\": %llu, ",
		(unsigned long long)(n_pages / 256), (unsigned long long)working_set, at_random ? "true" : "false", ok ? "true" : "false", u.nodename,
		(unsigned long long)s.start_ns, (unsigned long long)end_ns);
	fprintf(f, "\"iterations\": %llu, \"largest_gap_us\": %.1f,\n\"gaps\": [", (unsigned long long)s.iterations, (double)s.top[0].len_ns / 1000);
	for (int i = 0; i < TOP && s.top[i].len_ns; i++)
		fprintf(f, "%s{\"at_ns\": %llu, \"us\": %.1f}", i ? ", " : "", (unsigned long long)s.top[i].at_ns, (double)s.top[i].len_ns / 1000);
	fprintf(f, "],\n\"histogram_log2_ns\": [");
	for (int i = 0; i < BUCKETS; i++)
		fprintf(f, "%s%llu", i ? ", " : "", (unsigned long long)s.histogram[i]);
	fprintf(f, "],\n\"iterations_per_10ms\": [");
	for (uint64_t i = 0; i < n_slots && i < SLOTS; i++)
		fprintf(f, "%s%u", i ? ", " : "", slots[i]);
	fprintf(f, "]}\n");
	fclose(f);
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = { { "mib", 1, NULL, 'm' },	 { "pages", 1, NULL, 'p' },	{ "random", 0, NULL, 'r' },
						 { "sequential", 0, NULL, 's' }, { "no-verify", 0, NULL, 'n' }, { NULL, 0, NULL, 0 } };
	int c;

	n_pages = 16 * 256;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'm')
			n_pages = strtoull(optarg, NULL, 10) * 256;
		else if (c == 'p')
			working_set = strtoull(optarg, NULL, 10);
		else if (c == 'r' || c == 's')
			at_random = c == 'r';
		else if (c == 'n')
			verify = false;
		else
			exit(2);
	}
	if (argc - optind != 2 || !n_pages) {
		fprintf(stderr, "usage: gap [--mib N] [--pages W] [--random|--sequential] [--no-verify] STATUS_FILE JSON_FILE\n");
		exit(2);
	}
	if (!working_set || working_set > n_pages)
		working_set = n_pages;
	status_path = argv[optind];
	json_path = argv[optind + 1];
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_term };
	int null = open("/dev/null", O_RDWR);
	uint64_t end_ns;
	bool ok;

	parse(argc, argv);
	setsid();
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	if (null > 2)
		close(null);
	sigaction(SIGTERM, &sa, NULL);
	memory = mmap(NULL, n_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	versions = calloc(n_pages, sizeof(*versions));
	if (memory == MAP_FAILED || !versions) {
		say("FAIL: no memory\n");
		return 2;
	}
	for (uint64_t p = 0; p < n_pages; p++) {
		for (uint64_t i = 1; i < WORDS; i++)
			memory[p * WORDS + i] = mix(p * WORDS + i);
		memory[p * WORDS] = mix(p << 32);
		versions[p] = 0;
	}
	memset(slots, 0, sizeof(slots));
	s.start_ns = now_ns();
	say("ready %d\n", getpid());
	work();
	end_ns = now_ns();
	ok = !verify || verify_all();
	write_json(ok, end_ns);
	if (ok)
		say("ok\n");
	return ok ? 0 : 1;
}
