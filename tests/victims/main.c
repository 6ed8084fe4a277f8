// SPDX-License-Identifier: GPL-2.0-or-later
/* main.c - runs one kind of victim, and the helpers that all kinds share */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "victim.h"

extern const struct victim_kind __start_victims[], __stop_victims[];

int victim_argc;
char **victim_argv;
const char *victim_out;
volatile int victim_stopping;

static char check_path[4096], out_dir[4096], start_host[65];
static int out_fd = -1;
static volatile sig_atomic_t term_seen;
static int fail_claimed, fail_set;
static char fail_text[2000];

static void on_term(int sig)
{
	term_seen = 1;
}

void report(const char *format, ...)
{
	char line[2200];
	va_list ap;
	int fd, len;

	va_start(ap, format);
	len = vsnprintf(line, sizeof(line) - 1, format, ap);
	va_end(ap);
	if (len > (int)sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	fd = out_fd >= 0 ? out_fd : open(victim_out, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0 || write(fd, line, (size_t)len) != len)
		_exit(3);
	if (fd != out_fd)
		close(fd);
}

void fail(const char *format, ...)
{
	va_list ap;

	if (__atomic_exchange_n(&fail_claimed, 1, __ATOMIC_SEQ_CST))
		return;
	va_start(ap, format);
	vsnprintf(fail_text, sizeof(fail_text), format, ap);
	va_end(ap);
	for (char *p = fail_text; *p; p++) {
		if (*p == '\n')
			*p = ' ';
	}
	__atomic_store_n(&fail_set, 1, __ATOMIC_SEQ_CST);
}

bool failed(void)
{
	return __atomic_load_n(&fail_set, __ATOMIC_SEQ_CST);
}

const char *failure(void)
{
	return fail_text;
}

_Noreturn void broken_setup(const char *file, int line, const char *what)
{
	report("FAIL: %s:%d: %s: %s", file, line, what, strerror(errno));
	_exit(2);
}

void expect_u64(const char *what, uint64_t expected, uint64_t got)
{
	if (expected != got)
		fail("%s, expected %llu (%#llx), got %llu (%#llx)", what, (unsigned long long)expected, (unsigned long long)expected,
		     (unsigned long long)got, (unsigned long long)got);
}

void expect_text(const char *what, const char *expected, const char *got)
{
	const char *a = expected ? expected : "", *b = got ? got : "";

	if (!strcmp(a, b))
		return;
	for (;;) {
		size_t la = strcspn(a, "\n"), lb = strcspn(b, "\n");

		if (la != lb || memcmp(a, b, la)) {
			fail("%s, expected '%.*s', got '%.*s'", what, (int)(la > 300 ? 300 : la), a, (int)(lb > 300 ? 300 : lb), b);
			return;
		}
		if (!a[la] || !b[lb]) {
			fail("%s: one text is longer, expected '%.200s', got '%.200s'", what, a + la, b + lb);
			return;
		}
		a += la + 1;
		b += lb + 1;
	}
}

bool moved(void)
{
	struct utsname u;

	uname(&u);
	return strcmp(u.nodename, start_host) != 0;
}

long victim_arg(int index, long otherwise)
{
	return index < victim_argc ? strtol(victim_argv[index], NULL, 0) : otherwise;
}

const char *beside(const char *name)
{
	static _Thread_local char path[8192];

	snprintf(path, sizeof(path), "%s/%s.%d", out_dir, name, getpid());
	return path;
}

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

void fill(void *p, size_t len_bytes, uint64_t seed)
{
	uint64_t *w = p;

	for (size_t i = 0; i < len_bytes / 8; i++)
		w[i] = mix(seed + i);
}

void verify(const char *what, const void *p, size_t len_bytes, uint64_t seed)
{
	const volatile uint64_t *w = p;

	for (size_t i = 0; i < len_bytes / 8; i++) {
		uint64_t got = w[i];

		if (got != mix(seed + i)) {
			fail("%s: word at %p (offset %#zx of %#zx), expected %#llx, got %#llx, then %#llx", what, (void *)&w[i], i * 8,
			     len_bytes, (unsigned long long)mix(seed + i), (unsigned long long)got, (unsigned long long)w[i]);
			return;
		}
	}
}

void verify_zero(const char *what, const void *p, size_t len_bytes)
{
	const uint64_t *w = p;

	for (size_t i = 0; i < len_bytes / 8; i++) {
		if (w[i]) {
			fail("%s: word at %p (offset %#zx), expected 0, got %#llx", what, (void *)&w[i], i * 8, (unsigned long long)w[i]);
			return;
		}
	}
}

void *map_anon(size_t len_bytes, int prot, int flags)
{
	void *p = mmap(NULL, len_bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	must(p != MAP_FAILED);
	return p;
}

uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void sleep_ms(unsigned ms)
{
	struct timespec ts = { ms / 1000, (ms % 1000) * 1000000l };

	if (nanosleep(&ts, NULL) < 0 && errno == EINTR && !term_seen && !access(check_path, F_OK))
		fail("nanosleep in the main thread, expected 0, got EINTR without a signal");
}

void text_add(struct text *t, const char *format, ...)
{
	va_list ap;
	int len;

	va_start(ap, format);
	len = vsnprintf(NULL, 0, format, ap);
	va_end(ap);
	if (t->len + (size_t)len + 1 > t->cap) {
		t->cap = (t->len + (size_t)len + 1) * 2 + 1024;
		t->s = realloc(t->s, t->cap);
		must(t->s);
	}
	va_start(ap, format);
	vsnprintf(t->s + t->len, t->cap - t->len, format, ap);
	va_end(ap);
	t->len += (size_t)len;
}

void text_file(struct text *t, const char *path, const char *line_prefixes[])
{
	FILE *f = fopen(path, "re");
	char line[8192];

	if (!f) {
		text_add(t, "%s: %s\n", path, strerror(errno));
		return;
	}
	if (!line_prefixes) {
		int c, col = 0;

		text_add(t, "%s: ", path);
		while ((c = fgetc(f)) != EOF)
			text_add(t, c > ' ' && c < 127 ? "%c%s" : "\\%02x%s", c, ++col % 200 ? "" : "\n");
		text_add(t, "\n");
	}
	while (line_prefixes && fgets(line, sizeof(line), f)) {
		for (int i = 0; line_prefixes[i]; i++) {
			if (!strncmp(line, line_prefixes[i], strlen(line_prefixes[i])))
				text_add(t, "%s", line);
		}
	}
	fclose(f);
}

static pthread_t spawned[256];
static unsigned n_spawned;

void spawn(void *(*run)(void *), void *arg, unsigned long *ret_thread)
{
	sigset_t all, old;
	pthread_attr_t attr;

	must(n_spawned < 256);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	errno = pthread_create(&spawned[n_spawned], &attr, run, arg);
	must(!errno);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret_thread)
		*ret_thread = spawned[n_spawned];
	n_spawned++;
}

void join_all(void)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 30;
	for (unsigned i = 0; i < n_spawned; i++) {
		int err = pthread_timedjoin_np(spawned[i], NULL, &end);

		if (err) {
			fail("pthread_join of thread %u, expected 0, got %s", i, strerror(err));
			return;
		}
	}
	n_spawned = 0;
}

static int list_kinds(void)
{
	for (const struct victim_kind *k = __start_victims; k < __stop_victims; k++)
		printf("%s %u %s\n", k->name, k->flags, k->text);
	return 0;
}

int make_text_file(const char *path, const char *text)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);

	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return fd;
}

void write_proc(pid_t pid, const char *name, const char *text)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static bool asked_to_check(const struct victim_kind *k)
{
	static unsigned calls;

	if (term_seen && !(k->flags & V_CHECK_FILE))
		return true;
	return (!k->work || !(++calls % 16)) && !access(check_path, F_OK);
}

static int run_kind(const struct victim_kind *k)
{
	k->setup();
	if (failed())
		broken_setup(__FILE__, __LINE__, fail_text);
	report("ready %d", getpid());
	while (!failed() && !asked_to_check(k)) {
		if (k->work)
			k->work();
		else
			sleep_ms(20);
	}
	victim_stopping = 1;
	if (!failed() && getenv("VICTIM_EXPECT_MOVE") && !moved())
		fail("host name, expected another than %s", start_host);
	if (!failed())
		k->check();
	if (failed()) {
		report("FAIL: %s", fail_text);
		_exit(1);
	}
	report("ok");
	_exit(0);
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_term };
	struct utsname u;
	int null;

	if (argc == 2 && !strcmp(argv[1], "--list"))
		return list_kinds();
	if (argc < 3) {
		fprintf(stderr, "usage: victim NAME STATUS_FILE [ARG...] | --list\n");
		return 2;
	}
	uname(&u);
	strcpy(start_host, u.nodename);
	victim_out = argv[2];
	victim_argc = argc - 3;
	victim_argv = argv + 3;
	snprintf(check_path, sizeof(check_path), "%s.check", victim_out);
	snprintf(out_dir, sizeof(out_dir), "%s", victim_out);
	strcpy(out_dir, dirname(out_dir));
	out_fd = open(victim_out, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (out_fd < 0) {
		perror(victim_out);
		return 2;
	}
	fchmod(out_fd, 0666);
	setsid();
	null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	if (null > 2)
		close(null);
	sigaction(SIGTERM, &sa, NULL);
	for (const struct victim_kind *k = __start_victims; k < __stop_victims; k++) {
		if (strcmp(k->name, argv[1]))
			continue;
		if (!(k->flags & V_KEEP_OUT)) {
			close(out_fd);
			out_fd = -1;
		}
		return run_kind(k);
	}
	report("FAIL: no victim is called %s", argv[1]);
	return 2;
}
